// Pieces that several pages show: the table of classes below a plot, gaps and problems in words, months,
// downloads.

import { address, download, hasToken } from "./api.js";
import {
  classColor,
  count,
  counted,
  dateTime,
  datum,
  exactBytes,
  h,
  mark,
  nowrap,
  percent,
  rate,
  seconds,
  span,
  steady,
  swatch,
  volume,
} from "./base.js";
import { fragment } from "./route.js";
import { plainTable } from "./table.js";

/** A class as people name it: `1 world`. */
export function className(number, name) {
  const text = name ? `${number} ${name}` : `Class ${number}`;
  return number === 0 ? `${text} (not billed)` : text;
}

/** The same with its colour. */
export const classCell = (number, name) =>
  h("span", { class: "class" }, swatch(number), className(number, name));

/** Bytes with their exact number behind them. */
export function bytesCell(bytes) {
  return datum(volume(bytes), bytes, exactBytes(bytes));
}

/** The cells of what passed in, out, and both. */
export const figureCells = (of, cell = bytesCell) =>
  [of.in, of.out, of.total].map(({ bytes }) => cell(bytes));

/** A rate with its exact number behind it. */
export function rateCell(bits) {
  if (bits === null || bits === undefined) return rate(null);
  return datum(rate(bits), Math.round(bits));
}

/**
 * The columns of a document as a plot takes them. Steps after the last reading are left out, and the first
 * and last step end where the document ends, so that a rate uses the true length.
 */
export function plotColumns(doc, lastReading) {
  const { starts, classes } = doc;
  const end = Math.min(seconds(doc.to), lastReading ?? Infinity, doc.end ?? Infinity);
  const begin = Math.max(seconds(doc.from), seconds(doc.ledger_begin) ?? -Infinity);
  const last = starts.findLastIndex((start) => start < end);
  let first = starts.findIndex((start, at) => (starts[at + 1] ?? Infinity) > begin);
  if (first < 0 || last < first) return { times: [], series: [] };
  // A first step that is not recorded has no place.
  while (first < last && classes.length && classes.every((one) => one.in_bytes[first] === null)) first += 1;
  const times = starts.slice(first, last + 1);
  times[0] = Math.max(times[0], Math.min(begin, starts[first + 1] ?? Infinity));
  times.push(Math.min(end, starts[last + 1] ?? Infinity));
  const rates = (bytes) =>
    spread(bytes, doc, end)
      .slice(first, last + 1)
      .map((value, at) => (value === null ? null : (value * 8) / Math.max(times[at + 1] - times[at], 1)));
  const series = classes.map((one) => ({
    number: one.class,
    label: className(one.class, one.name),
    color: () => classColor(one.class),
    in: rates(one.in_bytes),
    out: rates(one.out_bytes),
  }));
  return { times, series };
}

/** Whether all traffic of a gap is in one step. */
const isLate = (gap) => gap.start && !gap.loses_traffic && /^(daemon|missed|disk|ledger)/.test(gap.reason);

/**
 * Bytes of a document's steps until `end`. What is all in the last step of a late reading is spread over its
 * time, as for percentiles.
 */
export function spread(bytes, { starts, gaps }, end) {
  const values = [...bytes];
  for (const gap of gaps.filter(isLate)) {
    const from = seconds(gap.start);
    const first = starts.findLastIndex((start) => start <= from);
    const last = starts.findLastIndex((start) => start < Math.min(seconds(gap.end), end));
    // Within a step, or before the first, there is nothing to spread.
    if (first < 0 || last <= first) continue;
    const until = Math.min(starts[last + 1] ?? end, end);
    const sum = values.slice(first + 1, last + 1).reduce((all, value) => all + value, 0);
    for (let at = first; sum && at <= last; at += 1) {
      const part = Math.min(starts[at + 1] ?? until, until) - Math.max(starts[at], from);
      values[at] = (at === first ? values[at] : 0) + (sum * part) / (until - from);
    }
  }
  return values;
}

/** The gaps of a document as a plot takes them: those with a time. */
export function plotGaps(gaps) {
  return gaps
    .filter((gap) => isShown(gap))
    .map((gap) => ({
      from: seconds(gap.start ?? gap.end),
      to: seconds(gap.end),
      loses: gap.loses_traffic,
    }));
}

/** What a container sent before the first counters existed is no gap of a plot. */
function isShown(gap) {
  return gap.reason !== "before_first_counters";
}

const LATE = "Nothing is lost. The traffic is all in one step of the ledger; plots spread it over this time.";

/** Why there are gaps, for people. */
const REASONS = {
  before_attach: "Traffic passed before trafctl was attached. It is not in the sums.",
  bypassed: "Traffic passed an attached interface by another path. It is not in the sums.",
  daemon_down: `The daemon was not running. ${LATE}`,
  missed_drain: `A reading was late. ${LATE}`,
  clock_stepped: "The clock was set. Nothing is lost, but some local time exists twice or not at all.",
  disk_full: `The ledger\u2019s disk was full. ${LATE}`,
  ledger_unwritable: `The ledger could not be written. ${LATE}`,
  class_table_mixed: "The class table changed without a reading. Some traffic may be in the wrong class.",
  counter_lost: "A counter fell or jumped. What it counted since its last reading is not in the sums.",
  counters_renewed: "The counters were replaced. What they counted since is not in the sums.",
  reboot: "The node rebooted. What was counted since the last reading is not in the sums.",
  ledger_lost: "An earlier ledger was removed. Its figures are not here.",
  reverted: "The node was reverted to an earlier state. What passed around then is not in the sums.",
  counted_twice: "More was counted than the kernel saw. The sums may be too large by this much.",
  small_segments: "Packets in tiny segments, whose size only the sender claims. They are in the sums.",
  drops_not_counted: "Drops were not counted. All traffic is in the sums.",
};

/** The gaps of a span in words; nothing if there are none. */
export function gapList(gaps, zone, title = "Gaps") {
  const shown = gaps.filter(isShown);
  if (shown.length === 0) return null;
  // What happened to many interfaces at once is one line.
  const lines = new Map();
  for (const gap of shown) {
    const when = gap.start
      ? span(seconds(gap.start), seconds(gap.end), zone)
      : `until ${dateTime(seconds(gap.end), zone)}`;
    const key = `${when} ${gap.reason} ${gap.detail}`;
    lines.set(key, [...(lines.get(key) ?? [when]), gap]);
  }
  const row = ([when, ...all]) => {
    const [gap] = all;
    const sum = (field) => volume(all.reduce((bytes, { size }) => bytes + (size?.[field] ?? 0), 0));
    const size = gap.size
      ? `${sum("in_skb_bytes")} in, ${sum("out_skb_bytes")} out`
      : gap.loses_traffic
        ? "unknown"
        : "nothing lost";
    const place = [gap.container && `container ${called(gap.container, gap.name)}`, gap.interface];
    return [
      h(
        "span",
        {},
        mark(gap.loses_traffic ? "gap-key loss" : "gap-key"),
        `${REASONS[gap.reason] ?? gap.reason}${gap.detail && !isLate(gap) ? ` (${gap.detail})` : ""}`,
      ),
      nowrap(when),
      all.length > 1
        ? nowrap(counted(all.length, "interface"))
        : place.filter(Boolean).join(", ") || "node",
      nowrap(size),
    ];
  };
  const losing = shown.filter((gap) => gap.loses_traffic).length;
  const most = 30;
  return h(
    "section",
    { class: "panel gaps cards" },
    h("h2", {}, title),
    h(
      "p",
      { class: "note" },
      `${count(shown.length)} in this span, ${count(losing)} of them with traffic that is not in the sums.`,
      lines.size < shown.length || lines.size > most ? " trafctl gaps lists each of them." : "",
    ),
    plainTable(
      title,
      ["What happened", "When", "Where", "Size"],
      [...lines.values()].slice(-most).reverse().map(row),
    ),
  );
}

/** Problems in words; nothing if there are none. */
export function problemList(problems) {
  if (problems.length === 0) return null;
  const heading =
    problems.length === 1 ? "A problem needs attention" : `${count(problems.length)} problems need attention`;
  return h(
    "section",
    { class: "notice warning problems", aria: { label: "Problems" } },
    h("h2", {}, heading),
    h(
      "ul",
      {},
      problems.map((problem) => h("li", {}, problem)),
    ),
  );
}

/**
 * The table of classes below a plot, which is also its legend. `rows` are the classes of a document; `cell` shows
 * bytes.
 */
export function classTable(caption, rows, { toggle, chosen = [], whole, cell, optional = [4] } = {}) {
  const sum = whole ?? rows.reduce((all, row) => all + row.total.bytes, 0);
  const header = ["Class", "In", "Out", "Total", "Share"];
  const name = (row) => {
    if (!toggle) return classCell(row.class, row.name);
    const isOn = chosen.length === 0 || chosen.includes(row.class);
    return h(
      "button",
      {
        type: "button",
        class: "class toggle",
        aria: { pressed: isOn },
        data: { key: `class ${row.class}` },
        onclick: () => toggle(row.class),
      },
      swatch(row.class),
      className(row.class, row.name),
    );
  };
  return plainTable(
    caption,
    header,
    rows.map((row) => [
      name(row),
      ...figureCells(row, cell),
      percent(row.total.bytes, sum),
    ]),
    { numbers: [1], optional },
  );
}

/** A link to a document, which also works where a token is needed. */
export function downloadLink(label, path, params, name) {
  const url = address(path, params);
  return h(
    "a",
    {
      href: url,
      download: name,
      class: "button",
      onclick: (event) => {
        if (!hasToken()) return;
        event.preventDefault();
        download(url, name).catch(() => {
          /* The page shows that nothing answers. */
        });
      },
    },
    label,
  );
}

/** Links to the same document as CSV and as JSON. */
export const downloadLinks = (path, params, name) => [
  downloadLink("CSV", path, { ...params, format: "csv" }, `${name}.csv`),
  downloadLink("JSON", path, params, `${name}.json`),
];

/** The beginning of the names of files about a container, or about the node. */
export function fileName(id) {
  return id === null ? "node" : `container-${id.replace(/[^\w.-]+/g, "_")}`;
}

/**
 * The figures of a plot, step by step, for those who do not see it. The table is only built while it is
 * open.
 */
export function stepTable(caption, titleOf) {
  let data = { times: [], series: [] };
  const body = h("div");
  const draw = () => {
    if (!element.open) return void body.replaceChildren();
    const { times, series } = data;
    const header = ["Time", ...series.flatMap((one) => [`${one.label} in`, `${one.label} out`])];
    const rows = times
      .slice(0, -1)
      .map((time, step) => [
        nowrap(titleOf(time, times[step + 1])),
        ...series.flatMap((one) => [rateCell(one.in[step]), rateCell(one.out[step])]),
      ]);
    body.replaceChildren(plainTable(caption, header, rows, { numbers: [1] }));
  };
  const element = h(
    "details",
    { class: "steps", ontoggle: draw },
    h("summary", { data: { key: `steps ${caption}` } }, "Figures of this plot as a table"),
    body,
  );
  return {
    element,
    update(newer) {
      data = newer;
      if (element.open) draw();
    },
  };
}

/** The head of a panel: its title, a note and links. */
export function panelHead(title, note, ...actions) {
  return h(
    "div",
    { class: "panel-head" },
    h("h2", {}, title),
    note instanceof Node ? note : h("p", { class: "note" }, note),
    actions.length ? h("div", { class: "actions" }, actions) : null,
  );
}

/** What people read of a container: its id, and its name if it has one. */
export const called = (id, name) => (name ? steady(`${id} (${name})`) : id);

/**
 * A link to a row's container, with the span of the list; `place` tells it from other links to the same container on
 * the page.
 */
export function containerLink({ tz, last }, { container: id, name }, place = "container") {
  const href = fragment({ page: "container", id, tz, last });
  return h("a", { href, data: { key: `${place} ${id}` } }, called(id, name));
}

/** A column of bytes of a table; `bytes(row)` may be null. */
export function bytesColumn(key, label, bytes) {
  const cell = (row) => (bytes(row) === null ? "\u2013" : bytesCell(bytes(row)));
  return { key, label, number: true, value: bytes, cell };
}

/** Facts as `[name, value]`, one on a line. */
export const factList = (facts) =>
  h(
    "dl",
    { class: "facts" },
    facts.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]),
  );

/** A panel that says why it has nothing to show. */
export const emptyPanel = (title, ...content) =>
  h("section", { class: "panel empty" }, h("h2", {}, title), h("p", {}, content));

/** What is to be known of the figures above: those of `sentences` that apply. */
export const rules = (...sentences) => sentences.filter(Boolean).map((text) => h("p", { class: "rule" }, text));

/** A figure with its name. */
export function tile(label, ...value) {
  return h("div", { class: "tile" }, h("dt", {}, label), h("dd", {}, value));
}

/** The months of a container, or of the node. */
export function monthTable(doc, { id, route }) {
  const months = doc.months;
  const hasCorrections = months.some((one) => isCorrected(one.billing));
  const hasShare = months.some((one) => one.permille !== null && one.permille !== undefined);
  const header = [
    "Month",
    "In",
    "Out",
    "Total",
    ...(hasShare ? ["Share of node"] : []),
    ...(hasCorrections ? ["To bill"] : []),
    "State",
  ];
  const rows = [];
  for (const month of months) {
    const billed = hasCorrections ? [signedCell(month.billing?.to_bill.total.bytes)] : [];
    if (month.estimate) {
      rows.push([
        h("em", {}, month.period),
        ...figureCells(month.estimate).map((cell) => h("em", {}, cell)),
        ...(hasShare ? [""] : []),
        ...(hasCorrections ? [""] : []),
        h("em", {}, "estimate"),
      ]);
    }
    rows.push([
      month.period,
      ...figureCells(month),
      ...(hasShare ? [month.permille === null ? "" : percent(month.permille, 1000)] : []),
      ...billed,
      month.closed ? "closed" : month.complete ? "open" : "running",
    ]);
  }
  const query = { by: "month", container: id, tz: route.tz };
  const name = `${fileName(id)}-months`;
  return [
    panelHead(
      "Months",
      `${doc.zone}, from day ${doc.billing_day}; without class 0`,
      id === null ? null : downloadLink("CSV", "report", { ...query, format: "csv" }, `${name}.csv`),
      downloadLink("JSON", "months", { container: id, tz: route.tz, months: 13 }, `${name}.json`),
    ),
    months.length
      ? plainTable("Months", header, rows, { numbers: [1, -1], optional: hasShare ? [1, 2, 4] : [1, 2] })
      : h("p", { class: "empty" }, "No month is recorded yet."),
  ];
}

function isCorrected(billing) {
  const total = billing?.corrected?.total;
  return Boolean(total && (total.bytes !== 0 || total.packets !== 0));
}

function signedCell(bytes) {
  return bytes === undefined ? "" : bytesCell(bytes);
}

/** Corrections in a document of months; nothing if there are none. */
export function correctionTable({ adjustments, container_names: names, months }, { id, zone }) {
  if (!adjustments?.length) return null;
  const classNames = new Map(months.flatMap((month) => month.classes).map((one) => [one.class, one.name]));
  const signed = (bytes) => (bytes > 0 ? `+${volume(bytes)}` : volume(bytes));
  const rows = adjustments.map((one) => [
    nowrap(String(one.period).slice(0, 10)),
    ...(id === null ? [called(one.container, names[one.container])] : []),
    classCell(one.class, classNames.get(one.class)),
    signed(one.bytes[0]),
    signed(one.bytes[1]),
    one.reason,
    nowrap(dateTime(seconds(one.made), zone)),
  ]);
  const header = ["Month", ...(id === null ? ["Container"] : []), "Class", "In", "Out", "Reason", "Made"];
  const at = header.indexOf("In");
  return h(
    "section",
    { class: "panel corrections cards" },
    h("h2", {}, "Corrections"),
    h(
      "p",
      { class: "note" },
      "Made after their month was closed. Counted figures stay as they are; \u201cto bill\u201d has both.",
    ),
    plainTable("Corrections", header, rows, { numbers: [at, at + 2] }),
  );
}
