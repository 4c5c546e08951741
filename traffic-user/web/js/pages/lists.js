// Two pages of lists: all containers, filtered, sorted and paged in the page with the rates of now; and the
// class table in force, with the class of an address and what each class carried this month.

import { follow, get } from "../api.js";
import { count, counted, dateTime, fill, h, percent, rate, seconds, span } from "../base.js";
import {
  bytesColumn,
  called,
  classCell,
  containerLink,
  downloadLink,
  downloadLinks,
  factList,
  figureCells,
  panelHead,
} from "../parts.js";
import { fragment, segment } from "../route.js";
import { DataTable, plainTable } from "../table.js";

const REFRESH_MS = 60_000;
const SPANS = [
  ["24h", "24 hours"],
  ["7d", "7 days"],
  ["30d", "30 days"],
  ["12mo", "12 months"],
];
/** More than any node has. */
const ALL = 20_000;

export function showContainers({ main, route: first, frame }) {
  let route = first;
  frame.setTitle("Containers");
  const ended = new AbortController();
  let rows = [];
  let rates = new Map();
  let isWhole = false;
  let drawn = 0;
  let live = null;

  const note = h("p", { class: "note" }, "Loading\u2026");
  const segments = h("nav", { class: "segments", aria: { label: "Span" } });
  const actions = h("div", { class: "actions" });
  const now = (row, field) => {
    const found = rates.get(row.container);
    return found ? (found[field] * 8) / found.seconds : isWhole ? 0 : null;
  };
  const table = new DataTable({
    caption: "Containers",
    sort: "total",
    text: (row) => called(row.container, row.name),
    empty: "No container is known yet. The first drain is within a minute.",
    columns: [
      {
        key: "container",
        label: "Container",
        header: true,
        cell: (row) => containerLink(route, row),
      },
      {
        key: "innow",
        label: "In now",
        number: true,
        optional: true,
        value: (row) => now(row, "in_bytes"),
        cell: (row) => rate(now(row, "in_bytes")),
      },
      {
        key: "outnow",
        label: "Out now",
        number: true,
        optional: true,
        value: (row) => now(row, "out_bytes"),
        cell: (row) => rate(now(row, "out_bytes")),
      },
      bytesColumn("in", "In", (row) => row.in.bytes),
      bytesColumn("out", "Out", (row) => row.out.bytes),
      bytesColumn("total", "Total", (row) => row.total.bytes),
      {
        key: "share",
        label: "Share",
        number: true,
        optional: true,
        value: (row) => row.total.bytes,
        cell: (row) => percent(row.total.bytes, row.whole),
      },
    ],
  });
  fill(
    main,
    h("div", { class: "page-head" }, h("h1", {}, "Containers"), note),
    h("div", { class: "controls" }, segments, actions),
    h("section", { class: "panel" }, table.element),
  );

  async function load() {
    const last = route.last ?? "24h";
    fill(
      segments,
      SPANS.map(([key, label]) =>
        segment(label, fragment(route, { last: key }), `span ${key}`, key === last),
      ),
    );
    const params = { last, count: ALL, tz: route.tz };
    fill(
      actions,
      downloadLinks("top", params, `containers-${last}`),
    );
    try {
      const [top, known] = await Promise.all([
        get("top", params, ended.signal),
        get("containers", {}, ended.signal),
      ]);
      const facts = await frame.facts();
      if (ended.signal.aborted) return;
      frame.ok();
      if (facts.live) startLive();
      else table.keep((column) => !column.key.endsWith("now"));
      const none = { packets: 0, bytes: 0 };
      const seen = new Set(top.rows.map((row) => row.container));
      const idle = known.containers
        .filter((one) => !seen.has(one.container))
        .map((one) => ({ ...one, in: none, out: none, total: none }));
      const whole = top.total.total.bytes;
      rows = top.rows.concat(idle).map((row) => ({ ...row, whole }));
      const shown = span(seconds(top.from), seconds(top.to), top.zone);
      note.textContent = `${counted(rows.length, "container")}, ${shown}, without class 0`;
      table.update(rows);
    } catch (error) {
      const why = frame.failed(error);
      if (why) note.textContent = `No list: ${why}`;
    }
  }

  const startLive = () =>
    (live ??= follow(
      { count: 1000, by_class: false },
      {
        onstate: (state, error) => {
          frame.stream(state, error);
          if (state !== "lost") return;
          rates = new Map();
          isWhole = false;
        },
        onsample: (sample) => {
          rates = new Map(sample.rows.map((row) => [row.container, { ...row, seconds: sample.seconds }]));
          isWhole = sample.row_count <= sample.rows.length;
          // Rows do not move under the reader's eyes more often than this.
          if (Date.now() - drawn < 3000) return;
          drawn = Date.now();
          if (rows.length) table.update(rows);
        },
      },
    ));
  load();
  const timer = setInterval(() => {
    if (!document.hidden) load();
  }, REFRESH_MS);
  return {
    load,
    change(next) {
      route = next;
      load();
    },
    stop() {
      ended.abort();
      clearInterval(timer);
      live?.stop();
    },
  };
}

const ORDERS = {
  virtuozzo: "longest prefix, class 0 first (as Virtuozzo)",
  "longest-prefix": "longest prefix",
  "last-line": "last matching line",
};

export function showClasses({ main, route, frame }) {
  frame.setTitle("Classes");
  const ended = new AbortController();
  const body = h("div", { class: "loading" }, h("p", { role: "status" }, "Loading\u2026"));
  fill(main, h("h1", {}, "Classes"), h("div", { class: "grid" }, body, explainPanel(frame, ended.signal)));

  async function load() {
    try {
      const doc = await get("classes", {}, ended.signal);
      await frame.facts();
      frame.ok();
      let month = null;
      try {
        const months = await get("months", { months: 1, tz: route.tz }, ended.signal);
        month = months.months[0] ?? null;
        fill(body, panel(doc, month, route.tz ?? months.zone));
      } catch (error) {
        const why = frame.failed(error);
        if (why) fill(body, panel(doc, null, route.tz ?? "UTC", why));
      }
      body.className = "";
    } catch (error) {
      const why = frame.failed(error);
      if (why) fill(body, h("p", { class: "empty" }, `The classes are not known: ${why}`));
    }
  }
  load();
  return {
    load,
    stop() {
      ended.abort();
    },
  };
}

function panel(doc, month, zone, why) {
  const { table } = doc;
  const carried = new Map((month?.classes ?? []).map((one) => [one.class, one]));
  const numbers = [...new Set([...doc.classes.map((one) => one.class), ...carried.keys()])].sort(
    (a, b) => a - b,
  );
  const known = new Map(doc.classes.map((one) => [one.class, one]));
  const whole = [...carried.values()].reduce((sum, one) => sum + one.total.bytes, 0);
  const none = { bytes: 0 };
  const rows = numbers.map((number) => {
    const one = known.get(number);
    const moved = carried.get(number) ?? { in: none, out: none, total: none };
    return [
      classCell(number, one?.name ?? moved.name),
      one?.prefixes === undefined || one?.prefixes === null ? "\u2013" : count(one.prefixes),
      ...(month ? [...figureCells(moved), percent(moved.total.bytes, whole)] : []),
    ];
  });
  const header = ["Class", "Prefixes", ...(month ? ["In", "Out", "Total", "Share"] : [])];
  return h(
    "section",
    { class: "panel" },
    panelHead(
      "The table in force",
      month ? `Traffic since ${dateTime(seconds(month.start), zone).slice(0, 10)}, ${zone}` : "",
      downloadLink("JSON", "classes", {}, "classes.json"),
    ),
    table
      ? facts(table, zone)
      : h(
          "p",
          { class: "empty" },
          "No class table is known. Everything is class 0 until ",
          h("code", {}, "trafctl classes load"),
          " has loaded one.",
        ),
    table?.difference ? h("p", { class: "notice warning" }, table.difference.message) : null,
    plainTable("Classes of the table in force", header, rows, {
      numbers: [1],
      optional: month ? [2, 3] : [],
    }),
    why ? h("p", { class: "note" }, `No figures of this month: ${why}`) : null,
  );
}

function facts(table, zone) {
  const rows = [
    ["Loaded", dateTime(seconds(table.loaded), zone)],
    ["From", table.file ?? "not known"],
    ["Prefixes", count(table.prefixes)],
    ["Order", ORDERS[table.order] ?? table.order ?? "not known"],
    ["Hash", h("code", { title: table.hash }, table.hash.slice(0, 16))],
  ];
  return factList(rows);
}

/** The box that explains an address. */
function explainPanel(frame, signal) {
  const input = h("input", {
    id: "address",
    type: "text",
    autocomplete: "off",
    spellcheck: "false",
    required: true,
    placeholder: "203.0.113.7 or 2001:db8::/32",
  });
  const answer = h("div", { class: "answer", aria: { live: "polite" } });
  const ask = async (event) => {
    event.preventDefault();
    const address = input.value.trim();
    if (!address) return;
    try {
      const doc = await get("classes/explain", { address }, signal);
      fill(answer, explanation(doc, address));
    } catch (error) {
      // An answer about this address says nothing of the page.
      const why = [400, 404, 503].includes(error.status) ? error.message : frame.failed(error);
      if (why) fill(answer, h("p", { class: "notice warning" }, why));
    }
  };
  return h(
    "section",
    { class: "panel explain" },
    h("h2", {}, "Explain an address"),
    h("p", { class: "note" }, "Which class a peer\u2019s address or prefix has, and which line decides."),
    h(
      "form",
      { class: "explain-form", onsubmit: ask },
      h("label", { for: "address" }, "Address or prefix"),
      input,
      h("button", { type: "submit" }, "Explain"),
    ),
    answer,
  );
}

/** Parts that are listed of a prefix. */
const PARTS = 100;

/** The answer for an address (with the lines that match) or a prefix (with its parts). */
function explanation(doc, address) {
  const named = (number) => classCell(number, doc.names?.[number]);
  const line = (entry) =>
    entry
      ? ["line ", count(entry.line), ": ", h("code", {}, `${entry.class} ${entry.prefix}`)]
      : "no line matches";
  const file = doc.file ? [" of ", h("code", {}, doc.file)] : null;
  if (Array.isArray(doc.parts)) {
    const share = (value) => percent(value, 1);
    const shown = doc.parts.slice(0, PARTS);
    return [
      h(
        "p",
        { class: "verdict" },
        h("code", {}, address),
        doc.classes.length === 1 ? " is all in " : " is in ",
        doc.classes.map((one, at) => [at ? ", " : "", named(one.class), ` ${share(one.share)}`]),
      ),
      plainTable(
        `Parts of ${address}`,
        ["Class", "Deciding line", "Share"],
        shown.map((part) => [named(part.class), h("span", {}, line(part.decided_by)), share(part.share)]),
        { numbers: [2] },
      ),
      doc.parts_total > shown.length
        ? h("p", { class: "note" }, `The largest ${shown.length} of ${count(doc.parts_total)} parts.`)
        : null,
    ];
  }
  return [
    h("p", { class: "verdict" }, h("code", {}, address), " is in ", named(doc.class)),
    h(
      "p",
      {},
      doc.decided_by
        ? ["Decided by ", line(doc.decided_by), file, ": ", words(doc.rule), "."]
        : "No line matches, which is class 0.",
      doc.comment ? ` The line\u2019s comment: ${doc.comment}` : null,
    ),
    doc.shadows.length
      ? plainTable(
          "Other matching lines",
          ["Other matching line", "Why it does not decide"],
          doc.shadows
            .slice(0, PARTS)
            .map((one) => [
              h("span", {}, line(one.entry)),
              `${words(one.reason.kind)} (line ${one.reason.line})`,
            ]),
        )
      : null,
  ];
}

/** `shorter-prefix` as words. */
function words(name) {
  return name.replaceAll("-", " ");
}
