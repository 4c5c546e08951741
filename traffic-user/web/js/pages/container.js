// One container, or without an id the whole node: its traffic over time by class, the 95th percentile and
// the commit, gaps, months and corrections.

import { follow, get } from "../api.js";
import {
  counted,
  datum,
  dateTime,
  fill,
  h,
  mark,
  percent,
  rate,
  seconds,
  span,
  variable,
  zoneName,
} from "../base.js";
import { dropBlock, quotaBlock } from "../blocks.js";
import {
  called,
  classTable,
  correctionTable,
  downloadLink,
  downloadLinks,
  fileName,
  gapList,
  monthTable,
  plotColumns,
  plotGaps,
  rateCell,
  rules,
  stepTable,
  tile,
} from "../parts.js";
import { Plot, stepTitle } from "../plot.js";
import { commitRate, controls, fragment, iso, link, span as spanOf } from "../route.js";

const REFRESH_MS = 60_000;
/** The drops of all containers take a while to read. */
const WHOLE_NODE_MS = 300_000;
const STEP_NAMES = {
  "5min": "five-minute steps",
  hour: "hourly steps",
  day: "daily steps",
  month: "monthly steps",
};

export function show({ main, route: first, frame }) {
  let route = first;
  const id = first.id;
  const name = id === null ? "Whole node" : `Container ${id}`;
  frame.setTitle(name);
  let loading = null;
  let live = null;
  let doc = null;

  const title = h("h1", {}, name);
  const now = h("span", { class: "now" });
  const bar = h("div");
  const notice = h("div");
  const note = h("p", { class: "note" }, "Loading\u2026");
  const actions = h("div", { class: "actions" });
  const tiles = h("dl", { class: "tiles small" });
  const table = h("div");
  const ruleBox = h("div", { class: "rules" });
  const months = h(
    "section",
    { class: "panel" },
    h("h2", {}, "Months"),
    h("p", { class: "empty" }, "Loading\u2026"),
  );
  const corrections = h("div");
  const quotas = quotaBlock();
  const drops = dropBlock();
  const gaps = h("div");
  const plot = new Plot({
    label: `Traffic of ${name} by class`,
    zone: route.tz ?? "UTC",
    onzoom: (from, to) => frame.go({ last: null, from: iso(from), to: iso(to) }),
  });
  const steps = stepTable(`Traffic of ${name}, step by step`, (from, to) => stepTitle(from, to, zone()));
  const zone = () => route.tz ?? doc?.zone ?? "UTC";

  fill(
    main,
    h(
      "div",
      { class: "page-head" },
      h(
        "p",
        { class: "crumb" },
        h("a", { href: link(route, "containers"), data: { key: "back" } }, "Containers"),
      ),
      title,
      now,
    ),
    bar,
    notice,
    h(
      "div",
      { class: "grid container-grid" },
      h(
        "section",
        { class: "panel main-panel" },
        h("div", { class: "panel-head" }, h("h2", {}, "Traffic"), note, actions),
        tiles,
        plot.element,
        table,
        steps.element,
        ruleBox,
      ),
      h("div", { class: "stack" }, months, corrections, quotas.element),
    ),
    drops.element,
    gaps,
  );
  drawBar();

  async function load(isTimed = false) {
    loading?.abort();
    loading = new AbortController();
    const { signal } = loading;
    const common = { container: id, tz: route.tz };
    try {
      const [series, table] = await Promise.all([
        get(
          "series",
          {
            ...common,
            ...spanOf(route, zone(), "24h"),
            by: route.by,
            class: route.classes,
            percentile: id === null ? null : 95,
            points: points(),
          },
          signal,
        ),
        // Older months can have no other zone than the ledger's, and that is no reason to show nothing.
        get("months", { ...common, months: 13 }, signal).catch((error) => error),
      ]);
      const facts = await frame.facts();
      if (signal.aborted) return;
      doc = series;
      title.textContent = called(name, doc.container_names[id]);
      frame.setTitle(title.textContent);
      fill(notice);
      frame.ok();
      draw(table);
      if (id !== null) quotas.load({ container: id }, signal);
      const dropped = { show: "drops", ...common, from: doc.from, to: doc.to, split: "class,direction" };
      drops.load({ ...dropped, class: route.classes }, signal, isTimed && id === null ? WHOLE_NODE_MS : 0);
      if (facts.live) startLive();
    } catch (error) {
      const why = frame.failed(error);
      if (!why) return;
      note.textContent = "";
      fill(months);
      fill(notice, h("p", { class: "notice warning", role: "alert" }, sentence(why)));
    }
  }

  /** As many steps as can be told apart. */
  function points() {
    return Math.min(Math.max(plot.canvas.clientWidth || 700, 300), 1500);
  }

  function drawBar() {
    const shown = doc ? { from: seconds(doc.from), to: seconds(doc.to) } : null;
    fill(bar, controls({ route, frame, shown, zone: zone(), ledgerZone: route.tz ? null : doc?.zone }));
  }

  function draw(monthsDoc) {
    drawBar();
    plot.zone = zone();
    const data = plotColumns(doc, seconds(doc.last_reading));
    const chosen = route.classes;
    const lines = percentileLines().concat(commitLines());
    plot.update({ ...data, lines, gaps: plotGaps(doc.gaps), range: [seconds(doc.from), seconds(doc.to)] });
    steps.update(data);
    const shown = span(seconds(doc.from), seconds(doc.to), zone());
    note.textContent = `${shown}, ${zoneName(doc.zone)}, ${STEP_NAMES[doc.by]}`;
    fill(
      table,
      doc.classes.length
        ? classTable(`Traffic of ${name} by class`, classRows(), {
            toggle: (number) => toggle(number, chosen),
            chosen,
            whole: doc.total.total.bytes + doc.class_zero.total.bytes,
          })
        : h("p", { class: "empty" }, emptyText()),
    );
    drawTiles();
    drawActions();
    const why = monthsDoc instanceof Error && monthsDoc.message;
    fill(
      months,
      why
        ? [h("h2", {}, "Months"), h("p", { class: "empty" }, sentence(why))]
        : monthTable(monthsDoc, { id, route }),
    );
    fill(corrections, why ? null : correctionTable(monthsDoc, { id, zone: zone() }));
    fill(gaps, gapList(doc.gaps, zone()));
  }

  /** The classes of the span, and those that are chosen without traffic, so that they can be left again. */
  function classRows() {
    const none = { bytes: 0 };
    const absent = route.classes.filter((number) => !doc.classes.some((row) => row.class === number));
    return doc.classes.concat(
      absent.map((number) => ({
        class: number,
        name: doc.class_names?.[number],
        in: none,
        out: none,
        total: none,
      })),
    );
  }

  function emptyText() {
    const begin = seconds(doc.ledger_begin);
    if (begin && begin >= seconds(doc.to)) return "The ledger begins after this span.";
    const last = seconds(doc.last_reading);
    if (!last || last > seconds(doc.from)) return "No traffic in this span.";
    const day = { last: null, from: iso(last - 86400), to: iso(last) };
    return [
      `Nothing is recorded after the last reading at ${dateTime(last, zone())}. `,
      h("a", { href: fragment(route, day) }, "The day before it"),
    ];
  }

  /** One class alone at first, then more or fewer; all of them when none is left. */
  function toggle(number, chosen) {
    const next = chosen.includes(number) ? chosen.filter((one) => one !== number) : [...chosen, number];
    frame.go({ classes: next.sort((a, b) => a - b) });
  }

  function percentileLines() {
    const found = doc.percentile;
    if (!found) return [];
    return [
      ["in", found.in_bits_per_s],
      ["out", found.out_bits_per_s],
    ]
      .filter(([, value]) => value > 0)
      .map(([direction, value]) => ({
        label: `95th percentile ${direction}`,
        value,
        direction,
        color: () => variable("--text"),
      }));
  }

  function commitLines() {
    const value = commitRate(route.commit);
    if (value === null) return [];
    const one = (direction) => ({
      label: `commit ${direction}`,
      value,
      direction,
      dash: [2, 3],
      color: () => variable("--error-line"),
    });
    return [one("in"), one("out")];
  }

  function drawTiles() {
    const found = doc.percentile;
    const commit = commitRate(route.commit);
    const shown = [];
    if (found) {
      const key = mark("line-key percentile");
      shown.push(
        tile("95th percentile in", key, rateCell(found.in_bits_per_s)),
        tile("95th percentile out", key.cloneNode(), rateCell(found.out_bits_per_s)),
        tile("95th percentile in + out", rateCell(found.total_bits_per_s)),
      );
    }
    if (commit !== null) {
      const larger = found ? Math.max(found.in_bits_per_s, found.out_bits_per_s) : null;
      shown.push(
        tile(
          "Commit",
          mark("line-key commit"),
          datum(rate(commit), commit),
          larger === null
            ? ""
            : h(
                "span",
                { class: larger > commit ? "over" : "under" },
                `${percent(larger, commit)} used by the larger direction`,
              ),
        ),
      );
    }
    fill(tiles, shown);
    fill(
      ruleBox,
      rules(
        found
          ? `${sentence(found.rule)}.`
          : doc.percentile_missing && `No percentile: ${doc.percentile_missing}`,
        doc.marked_buckets > 0 &&
          `${counted(doc.marked_buckets, "five-minute step")} with traffic of another time, too.`,
        `Basis: ${doc.basis_statement}.`,
      ),
    );
  }

  /** The same query as the commands answer, with the step and the span that are shown. */
  function drawActions() {
    const file = `${fileName(id)}-${doc.from.slice(0, 10)}-by-${doc.by}`;
    const params = {
      container: id,
      class: route.classes,
      tz: route.tz,
      from: doc.from,
      to: doc.to,
      by: doc.by,
    };
    fill(
      actions,
      id === null
        ? downloadLink("JSON", "series", params, `${file}.json`)
        : downloadLinks("report", { ...params, split: "class" }, file),
      h(
        "a",
        {
          href: fragment(route, { last: null, from: doc.from, to: doc.to, by: doc.by, tz: doc.zone }),
          class: "button",
          data: { key: "link" },
        },
        "Link",
      ),
      h(
        "button",
        { type: "button", class: "button", data: { key: "print" }, onclick: () => print() },
        "Print",
      ),
    );
  }

  function startLive() {
    live ??= follow(
      { container: id, count: 0, by_class: true },
      {
        onstate: (state, error) => {
          frame.stream(state, error);
          if (state === "lost") fill(now);
        },
        onsample: (sample) => {
          const one = (name, bytes) => [` ${name} `, h("strong", {}, rate((bytes * 8) / sample.seconds))];
          const { all, dropped } = sample;
          const lost = dropped && one("dropped", dropped.in_bytes + dropped.out_bytes);
          fill(now, "Now:", one("in", all.in_bytes), one("out", all.out_bytes), lost);
        },
      },
    );
  }

  load();
  const timer = setInterval(() => {
    if (!route.from && !route.to && !document.hidden) load(true);
  }, REFRESH_MS);
  return {
    load,
    change(next) {
      route = next;
      drawBar();
      load();
    },
    stop() {
      loading?.abort();
      clearInterval(timer);
      live?.stop();
      plot.destroy();
    },
  };
}

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
