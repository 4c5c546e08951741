// The overview: what passes now, the last 24 hours, the largest containers, and problems only when there are
// any.

import { LIVE_SECONDS, columns, follow, get } from "../api.js";
import {
  classColor,
  count,
  counted,
  dateTime,
  duration,
  fill,
  h,
  percent,
  rate,
  seconds,
  sparkline,
} from "../base.js";
import {
  bytesCell,
  className,
  classTable,
  containerLink,
  downloadLinks,
  emptyPanel,
  figureCells,
  gapList,
  panelHead,
  plotColumns,
  plotGaps,
  problemList,
  rateCell,
  spread,
  stepTable,
  tile,
} from "../parts.js";
import { Plot, stepTitle } from "../plot.js";
import { iso, link } from "../route.js";
import { plainTable } from "../table.js";

const REFRESH_MS = 30_000;
const LARGEST = 10;

export function show({ main, route, frame }) {
  frame.setTitle("Overview");
  const ended = new AbortController();
  let doc = null;
  let live = null;
  let latest = null;
  let plots = null;
  let isLoading = false;
  let known = [];

  const problems = h("div");
  const body = h("div", { class: "loading" }, h("p", { role: "status" }, "Loading\u2026"));
  fill(main, h("h1", { class: "visually-hidden" }, "Overview"), problems, body);

  const load = async () => {
    if (isLoading) return;
    isLoading = true;
    try {
      doc = await get("overview", { count: LARGEST, tz: route.tz }, ended.signal);
      await frame.facts(doc);
      // A class that had no traffic for a day has a name, too.
      if (doc.live && !plots) known = (await get("classes", {}, ended.signal)).classes;
      frame.ok();
      draw();
    } catch (error) {
      const why = frame.failed(error);
      if (!doc && why) fill(body, h("p", { class: "empty" }, `No figures yet: ${why}`));
    } finally {
      isLoading = false;
    }
  };

  function draw() {
    fill(problems, problemList(doc.problems));
    if (!plots) {
      plots = build();
      if (doc.live) startLive();
    }
    if (doc.ledger) plots.day.update(doc);
    drawTiles();
    drawLargest();
  }

  function build() {
    const tiles = h("dl", { class: "tiles" });
    const day = doc.ledger ? dayPanel(doc, route, frame) : null;
    const now = doc.live ? livePanel(doc.ledger?.zone ?? "UTC") : null;
    const largest = h("section", { class: "panel" });
    const gaps = h("div");
    fill(
      body,
      tiles,
      h("div", { class: "grid" }, now?.element, day?.element),
      largest,
      gaps,
      doc.ledger
        ? null
        : emptyPanel(
            "No ledger",
            "This daemon keeps no ledger, so there are only live figures. Remove ",
            h("code", {}, "--no-ledger"),
            " or look at ",
            h("code", {}, "trafctl status"),
            " for what keeps it from being opened.",
          ),
    );
    body.className = "page";
    return { tiles, day, now, largest, gaps };
  }

  function startLive() {
    // Beyond this, the rates of all containers are more than a page needs each second.
    const rows = (doc.container_count ?? 0) <= 200 ? 1000 : 200;
    live = follow(
      { count: rows, by_class: false },
      {
        onstate: frame.stream,
        onsample: (sample, history) => {
          latest = sample;
          plots.now.update(sample, history, names());
          drawTiles();
          drawRates();
        },
      },
    );
    if (live.history.length) plots.now.update(null, live.history, names());
  }

  const names = () => new Map((doc.classes ?? []).concat(known).map((one) => [one.class, one.name]));

  function drawTiles() {
    const tiles = [];
    if (doc.live) {
      const now = (field) =>
        latest ? (latest.all[field] * (field.endsWith("bytes") ? 8 : 1)) / latest.seconds : null;
      tiles.push(
        tile("In now", h("span", { class: "key-in" }, rate(now("in_bytes")))),
        tile("Out now", h("span", { class: "key-out" }, rate(now("out_bytes")))),
        tile("Packets now", latest ? `${count(now("in_packets") + now("out_packets"))}/s` : rate(null)),
      );
    }
    if (doc.ledger) {
      tiles.push(
        tile("In, 24 h", bytesCell(doc.total.in.bytes)),
        tile("Out, 24 h", bytesCell(doc.total.out.bytes)),
        tile("Class 0, not billed", bytesCell(doc.class_zero.total.bytes)),
        tile("In no class", bytesCell(doc.faults.total.bytes)),
        tile(
          "Containers",
          h(
            "a",
            { href: link(route, "containers"), data: { key: "all containers" } },
            count(doc.container_count),
          ),
        ),
      );
    }
    fill(plots.tiles, tiles);
  }

  /** The rates of the rows, without building the table again. */
  function drawRates() {
    if (!latest) return;
    const rows = new Map(latest.rows.map((row) => [row.container, row]));
    const isWhole = latest.row_count <= latest.rows.length;
    for (const cell of plots.largest.querySelectorAll("[data-now]")) {
      const row = rows.get(cell.dataset.container);
      const bytes = row ? row[cell.dataset.now] : isWhole ? 0 : null;
      cell.textContent = rate(bytes === null ? null : (bytes * 8) / latest.seconds);
    }
  }

  function drawLargest() {
    if (!doc.ledger) return;
    const zone = doc.ledger.zone;
    const now = (row, field) => h("span", { data: { now: field, container: row.container } }, rate(null));
    const header = [
      "Container",
      "24 hours",
      ...(doc.live ? ["In now", "Out now"] : []),
      "In",
      "Out",
      "Total",
      "Share",
    ];
    const rows = doc.containers.map((row) => [
      containerLink(route, row),
      sparkline(
        ...[row.in_bytes, row.out_bytes].map((bytes) => spread(bytes, doc, seconds(doc.ledger.last_reading))),
      ),
      ...(doc.live ? [now(row, "in_bytes"), now(row, "out_bytes")] : []),
      ...figureCells(row),
      percent(row.permille, 1000),
    ]);
    const optional = doc.live ? [2, 3, 6, 7] : [4, 5];
    const isEmpty = rows.length === 0;
    fill(
      plots.largest,
      panelHead(
        "Largest containers",
        [
          "Last 24 hours. ",
          h(
            "a",
            { href: link(route, "containers"), data: { key: "list" } },
            `All ${counted(doc.container_count, "container")}`,
          ),
        ],
        downloadLinks("top", { last: "24h", count: LARGEST, tz: route.tz }, "largest-containers"),
      ),
      isEmpty
        ? emptyLedger(doc, zone)
        : plainTable("Largest containers", header, rows, { numbers: [2], optional }),
    );
    fill(plots.gaps, gapList(doc.gaps, zone, "Gaps of the last 24 hours"));
    drawRates();
  }

  load();
  const timer = setInterval(load, REFRESH_MS);
  return {
    load,
    stop() {
      ended.abort();
      clearInterval(timer);
      live?.stop();
      plots?.day?.plot.destroy();
      plots?.now?.plot.destroy();
    },
  };
}

/** What to do where nothing is recorded. */
function emptyLedger(doc, zone) {
  const last = seconds(doc.ledger.last_reading);
  if (!last) {
    return h(
      "p",
      { class: "empty" },
      "Nothing is recorded yet. The first drain is within a minute. ",
      "If none do, ",
      h("code", {}, "trafctl status"),
      " says why.",
    );
  }
  return h(
    "p",
    { class: "empty" },
    `No container had traffic in the last 24 hours. The last reading is of ${dateTime(last, zone)}. `,
    "Are the interfaces attached? ",
    h("code", {}, "trafctl status"),
    " lists them.",
  );
}

/** The plot of the last minutes, with its table of classes. */
function livePanel(zone) {
  const plot = new Plot({ label: "Throughput by class, last five minutes", zone, seconds: true });
  const note = h("p", { class: "note" }, "Waiting for the first reading\u2026");
  const table = h("div");
  const element = h("section", { class: "panel" }, panelHead("Now", note), plot.element, table);
  return {
    plot,
    element,
    update(sample, history, names) {
      const numbers = [...new Set(history.flatMap((one) => [...one.classes.keys()]))].sort((a, b) => a - b);
      const data = columns(history, numbers);
      const to = data.times[data.times.length - 1] ?? 0;
      plot.update({
        times: data.times,
        gaps: [],
        range: [to - LIVE_SECONDS, to],
        series: data.values.map((one) => ({
          ...one,
          label: className(one.number, names.get(one.number)),
          color: () => classColor(one.number),
        })),
      });
      const held = to - (data.times[0] ?? to);
      note.textContent = held < LIVE_SECONDS - 5 ? `By class, for ${duration(held)}` : "By class, last 5 min";
      if (!sample) return;
      const found = new Map(sample.classes.map((one) => [one.class, one]));
      const figures = ({ in_bytes, out_bytes } = { in_bytes: 0, out_bytes: 0 }) => ({
        in: { bytes: in_bytes },
        out: { bytes: out_bytes },
        total: { bytes: in_bytes + out_bytes },
      });
      const rows = numbers.map((number) => ({
        class: number,
        name: names.get(number),
        ...figures(found.get(number)),
      }));
      fill(
        table,
        classTable("Throughput by class now", rows, {
          whole: figures(sample.all).total.bytes,
          cell: (bytes) => rateCell((bytes * 8) / sample.seconds),
          optional: [3, 4],
        }),
      );
    },
  };
}

/** The plot of the last 24 hours, with its table of classes. */
function dayPanel(first, route, frame) {
  const zone = route.tz ?? first.ledger.zone;
  const plot = new Plot({
    label: "Throughput by class, last 24 hours",
    zone,
    onzoom: (from, to) => frame.go({ page: "container", id: null, last: null, from: iso(from), to: iso(to) }),
  });
  const steps = stepTable("Throughput by class, last 24 hours", (from, to) => stepTitle(from, to, zone));
  const table = h("div");
  const element = h(
    "section",
    { class: "panel" },
    panelHead(
      "Last 24 hours",
      first.by === "5min" ? "By class, five-minute steps" : "By class, hourly steps",
      h("a", { class: "button", href: link(route, "container"), data: { key: "whole node" } }, "Other spans"),
    ),
    plot.element,
    table,
    steps.element,
  );
  return {
    plot,
    element,
    update(doc) {
      const data = plotColumns(doc, seconds(doc.ledger.last_reading));
      plot.update({ ...data, gaps: plotGaps(doc.gaps), range: [seconds(doc.from), seconds(doc.to)] });
      steps.update(data);
      fill(
        table,
        classTable(
          "Traffic by class, last 24 hours",
          doc.classes,
        ),
      );
    },
  };
}
