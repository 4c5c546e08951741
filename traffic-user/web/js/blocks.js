// Blocks of a container's page with documents of their own: quotas, and what was dropped. One that cannot be read
// hides nothing else.

import { count, counted, datum, dateTime, fill, h, nowrap, percent, rate, seconds, span } from "./base.js";
import { get } from "./api.js";
import {
  bytesCell,
  classCell,
  containerLink,
  downloadLink,
  downloadLinks,
  fileName,
  panelHead,
  rules,
} from "./parts.js";
import { plainTable } from "./table.js";

/** A block of the document `path`. `load` fills it with what `draw` makes of the document and its parameters. */
function block(title, path, draw) {
  const element = h("div");
  let read = 0;
  return {
    element,
    /** Reads the document, unless what is shown is not older than `most_ms`. */
    async load(params, signal, most_ms = 0) {
      if (Date.now() - read < most_ms) return;
      let content;
      try {
        content = draw(await get(path, params, signal), params);
      } catch (error) {
        content = panel(
          h("h2", {}, title),
          h("p", { class: "notice warning", role: "alert" }, `They cannot be shown: ${error.message}`),
        );
      }
      if (signal.aborted) return;
      fill(element, content);
      read = Date.now();
    },
  };
}

const panel = (...content) => h("section", { class: "panel cards" }, content);

/** What a container has used of its quotas, and what their periods come to. Without a quota, it is empty. */
export const quotaBlock = () => block("Quotas", "quotas", quotaPanel);

function quotaPanel(doc, params) {
  if (!doc.standings.length) return null;
  const header = ["Quota", "Period", "Used", "Of", "Share", "Expected", "Runs out", "Reached"];
  const rows = doc.standings.map((one) => [
    one.quota,
    nowrap(one.period),
    one.problem ? "?" : amount(one, one.used_bytes ?? one.used_bits_per_s),
    one.limit.kind === "unlimited" ? "unlimited" : amount(one, one.limit.bytes ?? one.limit.bits_per_s),
    share(one),
    one.expected_bytes === null ? "" : amount(one, one.expected_bytes),
    runsOut(one),
    one.reached_percent.map((reached) => `${reached} %`).join(", "),
  ]);
  const problems = doc.standings.filter((one) => one.problem);
  const json = downloadLink("JSON", "quotas", params, `${fileName(params.container)}-quotas.json`);
  return panel(
    panelHead("Quotas", "Until the last reading", json),
    plainTable("Quotas", header, rows, { numbers: [2, 6], optional: [1, 5] }),
    problems.map((one) => h("p", { class: "notice warning" }, `${one.quota}: ${one.problem}`)),
    rules(doc.standings.some((one) => one.expected_bytes !== null) && `Expected: ${doc.forecast_method}.`),
  );
}

function amount(one, value) {
  return one.limit.kind === "commit" ? datum(rate(value), value) : bytesCell(value);
}

function share(one) {
  const used = one.used_permille;
  const text = percent(used, 1000);
  return used === null ? "" : used >= 1000 ? over(text) : text;
}

const over = (text) => h("span", { class: "over" }, text);

function runsOut(one) {
  if (one.limit.kind === "allowance" && one.used_permille >= 1000) return over("used up");
  const at = one.runs_out;
  return at === null ? "" : nowrap(dateTime(seconds(at), one.time_zone).slice(0, 10));
}

/** Rows of drops that are shown. CSV and JSON have all. */
const MOST_DROPS = 10;

/** What was counted, dropped and delivered in a span, by class and direction: of a container or of all. */
export const dropBlock = () => block("Drops", "report", dropPanel);

/** The block of a report of drops. */
export function dropPanel(doc, params) {
  const { container = null, tz } = params;
  const rows = doc.rows
    .filter(({ dropped: { total } }) => total.packets || total.bytes)
    .sort((a, b) => b.dropped.total.bytes - a.dropped.total.bytes);
  const since = seconds(doc.recorded_from);
  const isLate = since > seconds(doc.from);
  const gaps = doc.gaps.filter((gap) => gap.reason === "drops_not_counted").length;
  const more = rows.length - MOST_DROPS;
  const ofNode = container === null;
  const header = ["Class", "Direction", "Counted", "Dropped", "Share", "Delivered", "Packets by reason"];
  const cells = (row) => [
    ...(ofNode ? [containerLink({ tz }, row, `drops ${row.class} ${row.direction}`)] : []),
    classCell(row.class, doc.class_names?.[row.class]),
    row.direction,
    bytesCell(row.counted.total.bytes),
    bytesCell(row.dropped.total.bytes),
    percent(row.dropped.total.bytes, row.counted.total.bytes),
    bytesCell(row.delivered.total.bytes),
    row.reasons.map(({ reason, total }) => `${reasonWords(reason)} ${count(total.packets)}`).join(", "),
  ];
  const sentences = rules(
    more > 0 && `${count(more)} more: CSV and JSON have all.`,
    since === null
      ? "Drops were never recorded here: trafctl status says why. What was dropped is shown as delivered."
      : isLate && `Drops are recorded since ${dateTime(since, doc.zone)}. Earlier ones are shown as delivered.`,
    gaps > 0 &&
      `Drops were not counted in ${counted(gaps, "gap")}, listed below. What was dropped then is shown as delivered.`,
    rows.length > 0 && ofNode && "A drop between two containers is in the rows of both.",
  );
  return panel(
    panelHead(
      "Drops",
      rows.length
        ? ["Largest first, ", nowrap(span(seconds(doc.from), seconds(doc.to), doc.zone))]
        : since === null || isLate || gaps
          ? "No drops are recorded."
          : "Nothing was dropped.",
      downloadLinks("report", params, `${fileName(container)}-drops`),
    ),
    rows.length
      ? plainTable("Drops", ofNode ? ["Container", ...header] : header, rows.slice(0, MOST_DROPS).map(cells), {
          numbers: ofNode ? [3, 7] : [2, 6],
        })
      : null,
    sentences,
  );
}

/** The group of reasons of a drop, for people. */
const reasonWords = (reason) =>
  reason === "neighbour" ? "no answer from the next hop" : reason.replaceAll("_", " ");
