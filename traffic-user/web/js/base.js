// What everything else is built from: elements, their colours and small pictures, and units and times as the
// commands print them (powers of 1000, three digits, times in the chosen zone). Text is only ever set as
// text, never as markup: ids of containers and names of interfaces come from others.

/**
 * An element `tag` with properties and children. `on*` are listeners, `data`, `aria` and `attr` attributes.
 */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name === "data" || name === "aria") {
      for (const [key, text] of Object.entries(value)) {
        if (text !== undefined && text !== null) element.setAttribute(`${name}-${key}`, String(text));
      }
    } else if (value === true) element.setAttribute(name, "");
    else element.setAttribute(name, String(value));
  }
  append(element, children);
  return element;
}

/** A text without signs that turn the direction of what follows: names come from others. */
export const steady = (text) =>
  String(text).replace(/[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");

function append(element, children) {
  for (const child of children) {
    if (Array.isArray(child)) append(element, child);
    else if (child instanceof Node) element.append(child);
    else if (child !== undefined && child !== null && child !== false) element.append(steady(child));
  }
}

const SVG = "http://www.w3.org/2000/svg";

/** An SVG element with attributes. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/** Replaces what an element holds. */
export function fill(element, ...children) {
  const focused = document.activeElement;
  const key = element.contains(focused) ? focused.getAttribute("data-key") : null;
  element.replaceChildren();
  append(element, children);
  // Whoever works by keyboard stays where they were when figures are renewed.
  if (key !== null) {
    for (const other of element.querySelectorAll("[data-key]")) {
      if (other.getAttribute("data-key") === key) return void other.focus({ preventScroll: true });
    }
  }
}

/** A text that stays on one line. */
export const nowrap = (text) => h("span", { class: "nowrap" }, text);

/** A picture of style sheet `kind`, which only repeats the text beside it. */
export const mark = (kind, ...content) => h("span", { class: kind, aria: { hidden: "true" } }, content);

/** A value with its exact machine-readable form. */
export function datum(text, exact, title) {
  return h("data", { value: exact, title }, text);
}

let lastId = 0;

/** An id that no other element of the page has. */
export function uniqueId(prefix) {
  lastId += 1;
  return `${prefix}-${lastId}`;
}

/** How many colours the style sheet has for classes. Class 0 is grey. */
const CLASS_COLORS = 8;

/** The name of the style sheet's variable for a class: the same class has the same colour everywhere. */
function className(number) {
  return number === 0 ? "--class-0" : `--class-${((number - 1) % CLASS_COLORS) + 1}`;
}

/** The square of a class's colour, which only repeats the name beside it. */
export function swatch(number) {
  const square = mark("swatch");
  square.style.background = `var(${className(number)})`;
  return square;
}

/** A variable of the style sheet under the theme of now. */
export function variable(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** The colour of a class under the theme of now. */
export function classColor(number) {
  return variable(className(number));
}

const listeners = new Set();

/** Calls `listener` when the theme changes, or the page is about to be printed. Returns how to end that. */
export function onTheme(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

const notify = () => listeners.forEach((listener) => listener());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", notify);
matchMedia("print").addEventListener("change", notify);

const WIDTH = 120;
const HALF = 11;

/** A sparkline of bytes per step. Steps of several are summed, as more than one per pixel shows nothing. */
export function sparkline(incoming, outgoing) {
  const bins = Math.min(WIDTH / 2, incoming.length);
  const [above, below] = [binned(incoming, bins), binned(outgoing, bins)];
  const top = Math.max(...above, ...below, 1);
  const path = (values, sign) => {
    const points = values.map((value, at) => {
      const y = (HALF - sign * (value / top) * (HALF - 1)).toFixed(1);
      return `L${(at * WIDTH) / bins} ${y}H${((at + 1) * WIDTH) / bins}`;
    });
    return `M0 ${HALF}${points.join("")}V${HALF}Z`;
  };
  return svg(
    "svg",
    {
      viewBox: `0 0 ${WIDTH} ${2 * HALF}`,
      class: "spark",
      "aria-hidden": "true",
      preserveAspectRatio: "none",
    },
    svg("path", { class: "spark-in", d: path(above, 1) }),
    svg("path", { class: "spark-out", d: path(below, -1) }),
  );
}

function binned(values, bins) {
  const sums = new Array(bins).fill(0);
  values.forEach((value, at) => {
    sums[Math.floor((at * bins) / values.length)] += value ?? 0;
  });
  return sums;
}

const RATES = ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s", "Pbit/s"];
const VOLUMES = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];

/** A no-break space, so that a number is never parted from its unit. */
const NBSP = "\u00a0";

function scaled(value, units) {
  const sign = value < 0 ? "\u2212" : "";
  let size = Math.abs(value);
  if (size === 0) return ["0", ""];
  let unit = 0;
  while (size >= 999.5 && unit + 1 < units.length) {
    size /= 1000;
    unit += 1;
  }
  const decimals = size < 9.995 ? 2 : size < 99.95 ? 1 : 0;
  const text = unit === 0 && Number.isInteger(size) ? String(size) : size.toFixed(decimals);
  return [sign + text, units[unit]];
}

function withUnit([number, unit]) {
  return unit === "" ? number : number + NBSP + unit;
}

/** Bits per second. */
export function rate(bitsPerSecond) {
  if (bitsPerSecond === null || bitsPerSecond === undefined) return "\u2013";
  return withUnit(scaled(bitsPerSecond, RATES));
}

/** Bytes. */
export function volume(bytes) {
  if (bytes === null || bytes === undefined) return "\u2013";
  return withUnit(scaled(Number(bytes), VOLUMES));
}

/** A rate for an axis: short, without needless zeros. */
export function axisRate(bitsPerSecond) {
  const size = Math.abs(bitsPerSecond);
  if (size === 0) return "0";
  const power = Math.min(Math.floor(Math.log10(size) / 3 + 1e-9), RATES.length - 1);
  const unit = Math.max(power, 0);
  return `${Number((size / 1000 ** unit).toPrecision(3))}${NBSP}${RATES[unit]}`;
}

/** A whole number with thin spaces between thousands. */
export function count(number) {
  if (number === null || number === undefined) return "\u2013";
  const text = String(typeof number === "bigint" ? number : Math.round(number));
  return text.replace(/^-/, "\u2212").replace(/\B(?=(\d{3})+(?!\d))/g, "\u202f");
}

/** The exact number of bytes, for a tooltip. */
export function exactBytes(bytes) {
  return `${count(bytes)} bytes`;
}

/** A part of a whole in percent. */
export function percent(part, whole) {
  if (!whole) return "\u2013";
  const value = (Number(part) / Number(whole)) * 100;
  if (value > 0 && value < 0.1) return "<0.1" + NBSP + "%";
  return value.toFixed(1) + NBSP + "%";
}

/** `one` or `several`, after the number. */
export function counted(number, one, several = one + "s") {
  return `${count(number)} ${number === 1 ? one : several}`;
}

const formatters = new Map();

function formatter(zone) {
  let found = formatters.get(zone);
  if (!found) {
    const options = {
      timeZone: zone,
      hourCycle: "h23",
      year: "numeric",
      month: "2-digit",
      day: "2-digit",
      hour: "2-digit",
      minute: "2-digit",
      second: "2-digit",
    };
    try {
      found = new Intl.DateTimeFormat("en-GB", options);
    } catch {
      // A zone that this browser does not know.
      found = new Intl.DateTimeFormat("en-GB", { ...options, timeZone: "UTC" });
    }
    formatters.set(zone, found);
  }
  return found;
}

/** Whether this browser knows a time zone. */
export function knowsZone(zone) {
  try {
    new Intl.DateTimeFormat("en-GB", { timeZone: zone });
    return true;
  } catch {
    return false;
  }
}

/** The name of the zone in which times are shown. */
export function zoneName(zone) {
  return knowsZone(zone) ? zone : `UTC, as this browser does not know ${zone}`;
}

/** The local date and time of an instant in seconds: `{year, month, day, hour, minute, second}` as text. */
export function parts(seconds, zone) {
  const found = {};
  for (const { type, value } of formatter(zone).formatToParts(new Date(seconds * 1000))) found[type] = value;
  return found;
}

/** `2026-11-28 22:45` */
export function dateTime(seconds, zone) {
  const at = parts(seconds, zone);
  return `${at.year}-${at.month}-${at.day} ${at.hour}:${at.minute}`;
}

/** `22:45:09` */
export function clock(seconds, zone) {
  const at = parts(seconds, zone);
  return `${at.hour}:${at.minute}:${at.second}`;
}

/** A span without repeating its date: `2026-11-28 22:45 – 22:50`. */
export function span(from, to, zone) {
  const [a, b] = [dateTime(from, zone), dateTime(to, zone)];
  return a.slice(0, 10) === b.slice(0, 10) ? `${a} \u2013 ${b.slice(11)}` : `${a} \u2013 ${b}`;
}

/** A length of time in its two largest units. */
export function duration(seconds) {
  const units = [
    ["d", 86400],
    ["h", 3600],
    ["min", 60],
    ["s", 1],
  ];
  let rest = Math.max(0, Math.round(seconds));
  const text = [];
  for (const [name, size] of units) {
    const number = Math.floor(rest / size);
    rest -= number * size;
    if (number > 0) text.push(`${number}${NBSP}${name}`);
    if (text.length === 2) break;
  }
  return text.join(" ") || `0${NBSP}s`;
}

/** The seconds since 1970 of a time in a document. */
export function seconds(time) {
  return time === null || time === undefined ? null : Date.parse(time) / 1000;
}
