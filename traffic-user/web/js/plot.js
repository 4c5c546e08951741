// Plots of rates over time, drawn by uPlot: traffic to containers above the zero line, traffic from them
// below.
//
// Every step is drawn over its own span at its own rate, so that an area is a volume. Steps of classes are
// stacked. The module knows neither pages nor documents.

import { axisRate, dateTime, h, knowsZone, onTheme, parts, rate, span, uniqueId, variable } from "./base.js";

/** Pixels, made larger as the text of the page is. */
const scaled = (pixels) => (pixels * parseFloat(getComputedStyle(document.documentElement).fontSize)) / 14;

/** Height of a line of text, in pixels. */
const LABEL = 17;

/**
 * A plot.
 *
 * `times` are the borders of the steps in seconds, one more than each series has values. `series` is a list
 * of `{label, color(), in: [bit/s or null], out: [...]}`. `lines` are `{label, value, direction, color(),
 * dash}`; `gaps` are `{from, to, loses}`.
 */
export class Plot {
  #options;
  #chart = null;
  #data = { times: [], series: [], lines: [], gaps: [] };
  #observer;
  #endTheme;
  #cursor = null;

  /** `label` names the plot; `onzoom(from, to)` and `oncursor(step or null)` are optional. */
  constructor({ label, zone = "UTC", onzoom, oncursor, seconds = false }) {
    this.#options = { zone: knowsZone(zone) ? zone : "UTC", onzoom, oncursor, seconds };
    const hint = uniqueId("plot-hint");
    this.canvas = h("div", { class: "plot-canvas" });
    this.readout = h("p", { class: "plot-readout" });
    this.element = h(
      "div",
      {
        class: "plot",
        tabindex: "0",
        role: "group",
        "data-key": `plot ${label}`,
        aria: { label, describedby: hint },
        onkeydown: (event) => this.#key(event),
        onblur: () => this.#moveTo(null),
      },
      this.canvas,
      this.readout,
      h("p", { id: hint, class: "visually-hidden" }, "The same figures are in the table below."),
    );
    this.#observer = new ResizeObserver(() => this.#resize());
    this.#observer.observe(this.canvas);
    this.#endTheme = onTheme(() => this.#rebuild());
  }

  /** Shows other figures. The chart is only built again if its series changed. */
  update(data) {
    const shape = ({ series, lines }) =>
      JSON.stringify([series.map((s) => s.label), lines.map((l) => l.label)]);
    const isSame = this.#chart && shape(this.#data) === shape({ lines: [], ...data });
    this.#data = { lines: [], gaps: [], ...data };
    if (isSame) this.#chart.setData(this.#columns());
    else this.#rebuild();
    if (this.#cursor === null) this.#rest();
  }

  /** What the line below the plot says while nothing is pointed at. */
  #rest() {
    this.readout.textContent = this.#options.onzoom
      ? "Drag across the plot to zoom in; by keyboard, arrow keys and + or \u2212."
      : "Point at a step, or use the arrow keys, to read it.";
  }

  /** Ends everything that the plot listens to. */
  destroy() {
    this.#observer.disconnect();
    this.#endTheme();
    this.#chart?.destroy();
    this.#chart = null;
  }

  /** The columns of uPlot: times, the sums of the stacks, and the constant lines. */
  #columns() {
    const { times, series, lines } = this.#data;
    const columns = [times];
    for (const sign of ["in", "out"]) {
      const sums = new Array(times.length).fill(null);
      const stacked = series.map((one) => {
        one[sign].forEach((value, step) => {
          if (value === null) return;
          sums[step] = (sums[step] ?? 0) + (sign === "in" ? value : -value);
        });
        // The last border is the end of the last step.
        if (times.length > 1) sums[times.length - 1] = sums[times.length - 2];
        return sums.slice();
      });
      // The highest stack is drawn first, the others over it.
      columns.push(...stacked.reverse());
    }
    for (const line of lines) {
      const values = times.map(() => (line.direction === "out" ? -line.value : line.value));
      columns.push(values, values);
    }
    return columns;
  }

  #rebuild() {
    this.#chart?.destroy();
    this.#chart = null;
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (width === 0 || height === 0) return;
    const { series, lines } = this.#data;
    const stepped = uPlot.paths.stepped({ align: 1 });
    const areas = ["in", "out"].flatMap(() =>
      [...series].reverse().map((one) => ({
        label: one.label,
        stroke: one.color(),
        fill: one.color(),
        width: 0.5,
        paths: stepped,
        points: { show: false },
      })),
    );
    // On a ground of its own, a line is seen in front of every class.
    const constants = lines.flatMap((line) => {
      const one = { label: line.label, points: { show: false } };
      return [
        { ...one, stroke: variable("--panel"), width: 4 },
        { ...one, stroke: line.color(), width: 1.5, dash: line.dash ?? [6, 4] },
      ];
    });
    const muted = variable("--muted");
    const font = `${scaled(11)}px ${variable("--font")}`;
    const axis = {
      stroke: muted,
      font,
      grid: { stroke: variable("--grid"), width: 1 },
      ticks: { show: false },
    };
    const zone = this.#options.zone;
    this.#chart = new uPlot(
      {
        width,
        height,
        tzDate: (time) => uPlot.tzDate(new Date(time * 1000), zone),
        legend: { show: false },
        padding: [10, scaled(26), 0, 0],
        cursor: {
          points: { show: false },
          y: false,
          drag: { x: Boolean(this.#options.onzoom), y: false, setScale: false },
        },
        scales: {
          x: { time: true, range: (chart, min, max) => this.#data.range ?? [min, max] },
          y: { range: yRange },
        },
        series: [{}, ...areas, ...constants],
        axes: [
          {
            ...axis,
            size: scaled(40),
            space: scaled(62),
            values: (chart, splits, index, space, step) => this.#timeLabels(splits, step),
          },
          { ...axis, size: scaled(84), space: scaled(34), values: (chart, splits) => splits.map(axisRate) },
        ],
        hooks: {
          drawClear: [(chart) => this.#drawGaps(chart)],
          draw: [(chart) => drawAxis(chart, variable("--axis"), muted, font)],
          setCursor: [(chart) => this.#cursorMoved(chart)],
          setSelect: [(chart) => this.#selected(chart)],
        },
      },
      this.#columns(),
      this.canvas,
    );
  }

  #resize() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!this.#chart) this.#rebuild();
    else if (width > 0 && height > 0 && (width !== this.#chart.width || height !== this.#chart.height)) {
      this.#chart.setSize({ width, height });
    }
  }

  #timeLabels(splits, step) {
    let day = "";
    return splits.map((time) => {
      if (time === null) return "";
      const at = parts(time, this.#options.zone);
      if (step >= 28 * 86400) return `${at.year}-${at.month}`;
      const date = `${at.month}-${at.day}`;
      if (step >= 86400) return date;
      const isNew = day !== "" && date !== day;
      day = date;
      const text = this.#options.seconds ? `${at.hour}:${at.minute}:${at.second}` : `${at.hour}:${at.minute}`;
      return isNew ? `${text}\n${date}` : text;
    });
  }

  #drawGaps(chart) {
    const { ctx, bbox } = chart;
    for (const gap of this.#data.gaps) {
      const from = Math.max(chart.valToPos(gap.from, "x", true), bbox.left);
      const to = Math.min(chart.valToPos(gap.to, "x", true), bbox.left + bbox.width);
      if (to < bbox.left || from > bbox.left + bbox.width) continue;
      ctx.save();
      ctx.fillStyle = variable(gap.loses ? "--gap-loss" : "--gap");
      // A gap of a second is still seen in a year.
      const width = Math.max(to - from, 2 * devicePixelRatio);
      ctx.fillRect(from, bbox.top, width, bbox.height);
      ctx.restore();
    }
  }

  #cursorMoved(chart) {
    const index = chart.cursor.idx;
    const isInside = chart.cursor.left >= 0 && index !== null && index !== undefined;
    this.#show(isInside ? Math.min(index, this.#data.times.length - 2) : null);
  }

  #show(step) {
    const { times, series } = this.#data;
    const isStep = step !== null && step >= 0 && step + 1 < times.length;
    if (this.#cursor === (isStep ? times[step] : null)) return;
    this.#cursor = isStep ? times[step] : null;
    if (isStep) {
      const sum = (direction) => {
        const values = series.map((one) => one[direction][step]).filter((value) => value !== null);
        return values.length ? values.reduce((a, b) => a + b, 0) : null;
      };
      const zone = this.#options.zone;
      const when = this.#options.seconds ? parts(times[step + 1], zone) : null;
      const text = when
        ? `${when.hour}:${when.minute}:${when.second}`
        : span(times[step], times[step + 1], zone);
      this.readout.textContent = `${text}: in ${rate(sum("in"))}, out ${rate(sum("out"))}`;
    } else {
      this.#rest();
    }
    this.#options.oncursor?.(isStep ? step : null);
  }

  #selected(chart) {
    const { left, width } = chart.select;
    if (width < 4 || !this.#options.onzoom) return;
    const [from, to] = [left, left + width].map((at) => chart.posToVal(at, "x"));
    chart.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    this.#zoom(from, to);
  }

  /** At least ten minutes, on whole minutes. */
  #zoom(from, to) {
    const middle = (from + to) / 2;
    const half = Math.max((to - from) / 2, 300);
    this.#options.onzoom(Math.floor((middle - half) / 60) * 60, Math.ceil((middle + half) / 60) * 60);
  }

  #key(event) {
    const { times } = this.#data;
    const last = times.length - 2;
    if (!this.#chart || last < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const at = this.#cursor === null ? null : times.indexOf(this.#cursor);
    const page = Math.max(1, Math.round(last / 12));
    const [from, to] = this.#data.range ?? [times[0], times[last + 1]];
    const middle = at === null ? (from + to) / 2 : (times[at] + times[at + 1]) / 2;
    const moves = {
      ArrowLeft: () => this.#moveTo((at ?? last + 1) - 1),
      ArrowRight: () => this.#moveTo((at ?? -1) + 1),
      PageUp: () => this.#moveTo((at ?? last) - page),
      PageDown: () => this.#moveTo((at ?? 0) + page),
      Home: () => this.#moveTo(0),
      End: () => this.#moveTo(last),
      Escape: () => this.#moveTo(null),
      "+": () => this.#options.onzoom && this.#zoom(middle - (to - from) / 4, middle + (to - from) / 4),
      "-": () => this.#options.onzoom && this.#zoom(middle - (to - from), middle + (to - from)),
    };
    const move = moves[event.key];
    if (!move) return;
    event.preventDefault();
    move();
  }

  #moveTo(step) {
    const { times } = this.#data;
    if (!this.#chart) return;
    // Steps are only read out to whoever moves by keyboard.
    if (step === null) {
      this.readout.removeAttribute("aria-live");
      return void this.#chart.setCursor({ left: -10, top: -10 });
    }
    this.readout.setAttribute("aria-live", "polite");
    const at = Math.min(Math.max(step, 0), times.length - 2);
    // The middle of the step, so that rounding does not choose its neighbour.
    const left = this.#chart.valToPos(times[at], "x");
    this.#chart.setCursor({ left: Math.max(left, 0), top: 10 });
    this.#show(at);
  }

  /** Draws the figures again, for example after its zone changed. */
  set zone(zone) {
    this.#options.zone = knowsZone(zone) ? zone : "UTC";
    this.#rebuild();
  }
}

/** Room for a label above and below whatever is drawn, and the same range for nothing at all. */
function yRange(chart, min, max) {
  const [low, high] = [Math.min(min ?? 0, 0), Math.max(max ?? 0, 0)];
  // Not as far as a label, which would be cut.
  if (low === high) return [-1100, 1100];
  const height = chart.bbox.height / devicePixelRatio;
  const label = scaled(LABEL);
  const room = ((high - low) * label) / Math.max(height - 2 * label, label);
  return [low - room, high + room];
}

/** The zero line, and which side of it is which. */
function drawAxis(chart, color, text, font) {
  const { ctx, bbox } = chart;
  const y = Math.round(chart.valToPos(0, "y", true)) + 0.5;
  ctx.save();
  ctx.strokeStyle = color;
  ctx.lineWidth = devicePixelRatio;
  ctx.beginPath();
  ctx.moveTo(bbox.left, y);
  ctx.lineTo(bbox.left + bbox.width, y);
  ctx.stroke();
  ctx.fillStyle = text;
  ctx.font = font.replace(/^[\d.]+/, (size) => String(size * devicePixelRatio));
  const left = bbox.left + 6 * devicePixelRatio;
  ctx.textAlign = "left";
  ctx.textBaseline = "top";
  ctx.fillText("\u2191 in", left, bbox.top + 2 * devicePixelRatio);
  ctx.textBaseline = "bottom";
  ctx.fillText("\u2193 out", left, bbox.top + bbox.height - 2 * devicePixelRatio);
  ctx.restore();
}

/** A title for a step, as the tables of plots name it. */
export function stepTitle(from, to, zone) {
  return to - from >= 86400 ? dateTime(from, zone).slice(0, 10) : span(from, to, zone);
}
