// What a container has used of its quotas, and what their periods come to.

import { datum, dateTime, fill, h, percent, rate, seconds } from "./base.js";
import { get } from "./api.js";
import { bytesCell, downloadLink, fileName, panelHead } from "./parts.js";
import { plainTable } from "./table.js";

/** The block of a container's quotas. `load` fills it; without a quota, it is empty. */
export function quotaBlock(id) {
  const element = h("div");
  return {
    element,
    async load(signal) {
      let doc;
      try {
        doc = await get("quotas", { container: id }, signal);
      } catch (error) {
        if (signal.aborted) return;
        // A mistake in the file with the quotas keeps nothing else from being shown.
        fill(
          element,
          panel(id, h("p", { class: "notice warning", role: "alert" }, `No quotas: ${error.message}`)),
        );
        return;
      }
      if (!signal.aborted) fill(element, doc.standings.length ? panel(id, table(doc)) : null);
    },
  };
}

function panel(id, ...content) {
  const json = downloadLink("JSON", "quotas", { container: id }, `${fileName(id)}-quotas.json`);
  return h("section", { class: "panel cards" }, panelHead("Quotas", "Until the last reading", json), content);
}

function table(doc) {
  const header = ["Quota", "Period", "Used", "Of", "Share", "Expected", "Runs out", "Reached"];
  const rows = doc.standings.map((one) => [
    one.quota,
    mark("nowrap", one.period),
    one.problem ? "?" : amount(one, one.used_bytes ?? one.used_bits_per_s),
    one.limit.kind === "unlimited" ? "unlimited" : amount(one, one.limit.bytes ?? one.limit.bits_per_s),
    share(one),
    one.expected_bytes === null ? "" : amount(one, one.expected_bytes),
    runsOut(one),
    one.reached_percent.map((reached) => `${reached} %`).join(", "),
  ]);
  const problems = doc.standings.filter((one) => one.problem);
  return [
    plainTable("Quotas", header, rows, { numbers: [2, 3, 4, 5], optional: [1, 5] }),
    problems.map((one) => h("p", { class: "notice warning" }, `${one.quota}: ${one.problem}`)),
    doc.standings.some((one) => one.expected_bytes !== null)
      ? h("p", { class: "rule" }, `Expected: ${doc.forecast_method}.`)
      : null,
  ];
}

function amount(one, value) {
  return one.limit.kind === "commit" ? datum(rate(value), value) : bytesCell(value);
}

function share(one) {
  const used = one.used_permille;
  return used === null ? "" : mark(used >= 1000 ? "over" : "", percent(used, 1000));
}

function mark(kind, text) {
  return h("span", { class: kind }, text);
}

function runsOut(one) {
  if (one.limit.kind === "allowance" && one.used_permille >= 1000) return mark("over", "used up");
  const at = one.runs_out;
  return at === null ? "" : mark("nowrap", dateTime(seconds(at), one.time_zone).slice(0, 10));
}
