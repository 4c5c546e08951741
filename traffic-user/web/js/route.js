// What is shown, as the fragment of the address: `#/container/101?last=24h&tz=Europe/Berlin&class=1`, and
// the controls that change it. A link keeps span, zone and classes.

import { h, parts, uniqueId } from "./base.js";

/** Parameters that are kept from page to page. */
const KEPT = ["tz"];

/** The page and its parameters of a fragment. */
export function parse(fragment) {
  const [path, search = ""] = fragment.replace(/^#?\/?/, "").split("?", 2);
  const [page = "", ...rest] = path.split("/");
  let id = rest.join("/");
  try {
    id = decodeURIComponent(id);
  } catch {
    /* Not an encoded id: as it was typed. */
  }
  const params = new URLSearchParams(search);
  return {
    page: page || "overview",
    id: id || null,
    last: params.get("last"),
    from: params.get("from"),
    to: params.get("to"),
    by: params.get("by"),
    tz: params.get("tz"),
    commit: params.get("commit"),
    classes: params
      .getAll("class")
      .filter((text) => /^\d{1,3}$/.test(text))
      .map(Number),
  };
}

/** The fragment of a page: `route` with `changes`. */
export function fragment(route, changes = {}) {
  const wanted = { ...route, ...changes };
  const path = wanted.page === "overview" ? "" : wanted.page;
  const id = wanted.id ? `/${encodeURIComponent(wanted.id)}` : "";
  const params = new URLSearchParams();
  for (const name of ["last", "from", "to", "by", "tz", "commit"]) {
    if (wanted[name]) params.set(name, wanted[name]);
  }
  for (const one of wanted.classes ?? []) params.append("class", one);
  const search = params.toString();
  return `#/${path}${id}${search ? `?${search}` : ""}`;
}

/** A link to another page, with what is kept. */
export function link(route, page, id = null) {
  const kept = Object.fromEntries(KEPT.map((name) => [name, route[name]]));
  return fragment({ page, id, ...kept });
}

/** The parameters of the span, as the API takes them. Thirteen months begin with the first day of one. */
export function span(route, zone, otherwise) {
  if (route.from || route.to) return { from: route.from, to: route.to };
  const last = route.last ?? otherwise;
  if (last !== "13mo") return { last };
  const now = parts(Date.now() / 1000, zone);
  return { from: `${now.year - 1}-${now.month}-01` };
}

const SPANS = [
  ["1h", "1 h"],
  ["6h", "6 h"],
  ["24h", "24 h"],
  ["7d", "7 d"],
  ["30d", "30 d"],
  ["13mo", "13 mo"],
];
const STEPS = [
  ["", "Automatic"],
  ["5min", "5 minutes"],
  ["hour", "Hours"],
  ["day", "Days"],
  ["month", "Months"],
];

/** One link of a row of choices. */
export const segment = (label, href, key, isCurrent) =>
  h(
    "a",
    { href, class: "segment", data: { key }, aria: { current: isCurrent ? "true" : undefined } },
    label,
  );

/** The zone of this browser. */
const LOCAL = Intl.DateTimeFormat().resolvedOptions().timeZone;

/**
 * The bar of controls. `shown` is `{from, to}` in seconds, the span of what is shown now; `ledgerZone` the
 * zone of the ledger, once known.
 */
export function controls({ route, frame, shown, zone, ledgerZone }) {
  const isCustom = Boolean(route.from || route.to);
  const current = isCustom ? null : (route.last ?? "24h");
  const to = (changes) => fragment(route, changes);
  const spans = SPANS.map(([last, label]) =>
    segment(label, to({ last, from: null, to: null }), `span ${last}`, last === current),
  );
  const length = shown ? shown.to - shown.from : 0;
  const shifted = (by) => to({ last: null, from: iso(shown.from + by), to: iso(shown.to + by) });
  const move = shown
    ? [
        segment("Earlier", shifted(-length), "earlier"),
        // Nothing is recorded after now.
        shown.to < Date.now() / 1000 - 60
          ? segment("Later", shifted(length), "later")
          : null,
      ]
    : [];
  return h(
    "div",
    { class: "controls" },
    h("nav", { class: "segments", aria: { label: "Span" } }, spans, move),
    customSpan({ frame, shown, zone, isCustom }),
    select("Step", STEPS, route.by ?? "", (by) => frame.go({ by: by || null })),
    select("Zone", zones(route, ledgerZone), route.tz ?? "", (tz) => frame.go({ tz: tz || null })),
    commitField(route, frame),
  );
}

function select(label, options, value, onchoice) {
  const id = uniqueId("select");
  return h(
    "div",
    { class: "field" },
    h("label", { for: id }, label),
    h(
      "select",
      { id, data: { key: `select ${label}` }, onchange: (event) => onchoice(event.target.value) },
      options.map(([key, text]) => h("option", { value: key, selected: key === value }, text)),
    ),
  );
}

/** The ledger's zone, this browser's, UTC, and what the address names. */
function zones(route, ledgerZone) {
  const all = [["", ledgerZone ? `${ledgerZone} (ledger)` : "The ledger\u2019s"]];
  for (const [zone, note] of [
    [LOCAL, " (this browser)"],
    ["UTC", ""],
    [route.tz, ""],
  ]) {
    if (zone && zone !== ledgerZone && !all.some(([key]) => key === zone)) all.push([zone, zone + note]);
  }
  return all;
}

/** Start and end by hand, in the zone that is shown. */
function customSpan({ frame, shown, zone, isCustom }) {
  const local = (time) => {
    const at = parts(time, zone);
    return `${at.year}-${at.month}-${at.day}T${at.hour}:${at.minute}`;
  };
  const field = (label, time) => {
    const id = uniqueId("time");
    const input = h("input", {
      id,
      type: "datetime-local",
      required: true,
      value: shown ? local(time) : "",
      data: { key: `time ${label}` },
    });
    return [input, h("div", { class: "field" }, h("label", { for: id }, label), input)];
  };
  const [from, fromField] = field("From", shown?.from);
  const [until, toField] = field("To", shown?.to);
  return h(
    "details",
    { class: "custom", open: isCustom },
    h("summary", { class: isCustom ? "segment chosen" : "segment", data: { key: "custom" } }, "Custom"),
    h(
      "form",
      {
        class: "custom-form",
        onsubmit: (event) => {
          event.preventDefault();
          frame.go({ last: null, from: from.value, to: until.value });
        },
      },
      fromField,
      toField,
      h("button", { type: "submit", data: { key: "apply" } }, "Show"),
    ),
  );
}

/**
 * The committed rate, as a line in the plot. It is part of the link, because the ledger knows no contracts.
 */
function commitField(route, frame) {
  const id = uniqueId("commit");
  const input = h("input", {
    id,
    type: "text",
    size: "7",
    placeholder: "100M",
    value: route.commit ?? "",
    autocomplete: "off",
    data: { key: "commit" },
    title: "Committed rate in bit/s, such as 100M or 1.5G",
    onchange: () => {
      const isGood = input.value.trim() === "" || commitRate(input.value) !== null;
      input.setCustomValidity(isGood ? "" : "Write a rate in bit/s, such as 100M or 1.5G");
      if (isGood) frame.go({ commit: input.value.trim() || null });
      else input.reportValidity();
    },
  });
  return h("div", { class: "field" }, h("label", { for: id }, "Commit"), input);
}

/** The bits per second of `100M` or `1.5 Gbit/s`; null if it is no rate. */
export function commitRate(text) {
  const found = /^\s*(\d+(?:\.\d+)?)\s*([kMGT]?)(?:bit\/s|b\/s)?\s*$/.exec(text ?? "");
  if (!found) return null;
  const bits = Number(found[1]) * 1000 ** ["", "k", "M", "G", "T"].indexOf(found[2]);
  return bits > 0 ? bits : null;
}

/** An instant in seconds as the API takes it. */
export const iso = (time) => new Date(Math.round(time) * 1000).toISOString().replace(".000Z", "Z");
