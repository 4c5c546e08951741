// The node itself: the daemon, interfaces, what is not watched and why, faults, drains, gaps, the balance.

import { get } from "../api.js";
import { count, counted, dateTime, duration, fill, h, nowrap, percent, seconds, volume } from "../base.js";
import {
  bytesCell,
  bytesColumn,
  called,
  containerLink,
  downloadLink,
  downloadLinks,
  emptyPanel,
  factList,
  gapList,
  panelHead,
  problemList,
} from "../parts.js";
import { DataTable, plainTable } from "../table.js";

const REFRESH_MS = 15_000;
/** The balance of all containers takes a while to read. */
const LEDGER_REFRESH_MS = 300_000;

/** What a fault means, and whether something should be done. */
const FAULTS = {
  not_ip: "No IP packet, such as ARP. Nothing is wrong.",
  no_container: "The local address belongs to no container. Name its owner: trafctl address.",
  container_table_full: "No place was free. Raise [limits] containers.",
  not_the_nodes: "On an uplink, neither from nor to the node itself. Nothing is wrong.",
};

export function show({ main, route, frame }) {
  frame.setTitle("Node");
  const ended = new AbortController();
  const problems = h("div");
  const body = h("div", { class: "loading" }, h("p", { role: "status" }, "Loading\u2026"));
  const gaps = h("div");
  const balance = h("div");
  let parts = null;
  let zone = route.tz ?? "UTC";
  fill(main, h("h1", {}, "Node"), problems, body, balance, gaps);

  async function loadLedger() {
    try {
      const facts = await frame.facts();
      if (ended.signal.aborted || !facts.zone) return;
      zone = route.tz ?? facts.zone;
      const series = await get("series", { last: "30d", by: "day", tz: route.tz }, ended.signal);
      fill(gaps, gapList(series.gaps, zone, "Gaps of the last 30 days"));
      const report = await get(
        "report",
        { show: "balance", last: "30d", tz: route.tz, by: "total" },
        ended.signal,
      );
      fill(balance, balancePanel(report, route));
    } catch (error) {
      const why = frame.failed(error);
      if (why) fill(gaps, h("p", { class: "note" }, `No gaps and no balance: ${why}`));
    }
  }

  async function load() {
    try {
      const { live } = await frame.facts();
      if (!live) return void fill(body, withoutDaemon());
      const doc = await get("interfaces", {}, ended.signal);
      frame.ok();
      fill(problems, problemList(doc.problems));
      if (!parts) {
        parts = build();
        fill(body, parts.elements);
        body.className = "grid node-grid";
      }
      parts.update(doc);
    } catch (error) {
      const why = frame.failed(error);
      if (parts || !why) return;
      fill(body, emptyPanel("No state of the node", `It cannot be read: ${why}`));
    }
  }

  function build() {
    const summary = h("section", { class: "panel" });
    const meanings = h("div");
    const packets = (key, label) => {
      const value = (row) => row[`${key}_packets`];
      return { key, label, number: true, value, cell: (row) => count(value(row)) };
    };
    const faults = new DataTable({
      caption: "Faults by interface",
      sort: "in",
      pageRows: 10,
      text: (row) => `${row.interface} ${row.fault}`,
      empty: "None.",
      columns: [
        { key: "interface", label: "Interface", header: true },
        { key: "fault", label: "Fault", cell: (row) => h("code", {}, row.fault) },
        packets("in", "In"),
        packets("out", "Out"),
      ],
    });
    const faultPanel = h(
      "section",
      { class: "panel" },
      panelHead("Faults by interface", "Packets that are in no class, and so on no bill"),
      faults.element,
      meanings,
    );
    const watch = h("section", { class: "panel" });
    const interfaces = new DataTable({
      caption: "Interfaces",
      sort: "interface",
      descending: false,
      pageRows: 25,
      text: (row) => `${row.interface} ${row.container ? called(row.container, row.name) : "shared"}`,
      empty: "No interface is attached. trafctl attach names what it would attach, and why not.",
      columns: [
        { key: "interface", label: "Interface", header: true },
        {
          key: "container",
          label: "Container",
          cell: (row) =>
            row.container === null ? "shared" : containerLink(route, row, `interface ${row.interface}`),
        },
        { key: "hooks", label: "Hooks", optional: true },
        bytesColumn("in", "In", (row) => row.in_bytes),
        bytesColumn("out", "Out", (row) => row.out_bytes),
        {
          key: "since",
          label: "Attached",
          optional: true,
          value: (row) => row.attached ?? "",
          cell: (row) => nowrap(row.attached ? dateTime(seconds(row.attached), zone) : "\u2013"),
        },
      ],
    });
    const unwatched = new DataTable({
      caption: "Interfaces that are not watched",
      sort: "interface",
      descending: false,
      pageRows: 10,
      text: (row) => `${row.interface} ${row.reason}`,
      empty: "Every interface is watched.",
      columns: [
        { key: "interface", label: "Interface", header: true },
        { key: "reason", label: "Why" },
      ],
    });
    watch.append(h("h2", {}, "Not watched"), unwatched.element);
    const interfaceTitle = h("p", { class: "note" });
    const interfacePanel = h(
      "section",
      { class: "panel wide" },
      panelHead("Interfaces", interfaceTitle, downloadLink("JSON", "interfaces", {}, "interfaces.json")),
      interfaces.element,
    );
    return {
      elements: [h("div", { class: "stack" }, summary, watch), faultPanel, interfacePanel],
      update(doc) {
        fill(summary, summaryPanel(doc, zone));
        faults.update(doc.faults);
        const kinds = new Set(doc.faults.map((row) => row.fault));
        fill(
          meanings,
          factList(
            [...kinds].map((fault) => [
              h("code", {}, fault),
              FAULTS[fault] ?? `${fault.replaceAll("_", " ")}.`,
            ]),
          ),
        );
        const passed = new Map(doc.passed.map((row) => [row.interface, row]));
        const at = dateTime(seconds(doc.time), zone);
        interfaceTitle.textContent = `${counted(doc.attachments.length, "interface")} at ${at}`;
        interfaces.update(
          doc.attachments.map((row) => {
            const moved = passed.get(row.interface);
            return {
              interface: row.interface,
              container: row.container,
              name: row.name,
              hooks: hooks(row),
              in_bytes: moved?.in_bytes ?? null,
              out_bytes: moved?.out_bytes ?? null,
              attached: moved?.attached,
            };
          }),
        );
        unwatched.update(doc.not_watched);
      },
    };
  }

  load();
  loadLedger();
  const timers = [
    setInterval(() => {
      if (!document.hidden) load();
    }, REFRESH_MS),
    setInterval(() => {
      if (!document.hidden) loadLedger();
    }, LEDGER_REFRESH_MS),
  ];
  return {
    load,
    stop() {
      ended.abort();
      timers.forEach(clearInterval);
    },
  };
}

/** What the page says of the node where only a file is read. */
const withoutDaemon = () =>
  emptyPanel(
    "Without a daemon",
    "This is what was recorded. Interfaces, faults and drains are only known to a running trafctl.",
  );

/** Both hooks of an interface in a word, or what is missing. */
function hooks(row) {
  const [incoming, outgoing] = [row.in, row.out].map((hook) => hook.kind);
  const before = [...row.in.before_ours, ...row.out.before_ours];
  const first = before.length ? `, behind ${before.join(", ")}` : "";
  if (incoming && incoming === outgoing) return incoming + first;
  return `in ${incoming ?? "missing"}, out ${outgoing ?? "missing"}${first}`;
}

function summaryPanel(doc, zone) {
  const { daemon } = doc;
  const at = (time) => (time ? dateTime(seconds(time), zone) : "never");
  const failing = (daemon.components ?? []).filter((one) => one.state === "failing");
  const memory = doc.memory.reduce((sum, map) => sum + map.bytes, 0);
  const rows = [
    ["Daemon", `${daemon.state}${daemon.started ? ` since ${at(daemon.started)}` : ""}`],
    [
      "Last drain",
      daemon.last_drain
        ? `${at(daemon.last_drain)}, ${duration(seconds(doc.time) - seconds(daemon.last_drain))} ago`
        : "none yet",
    ],
    ["Failed drains", count(daemon.drain_failures ?? 0)],
    [
      "Ledger",
      daemon.ledger_accepts_writes === false
        ? "accepts no writes"
        : daemon.ledger_accepts_writes
          ? "accepts writes"
          : "none is kept",
    ],
    ["Counters since", at(doc.epoch_created)],
    ["Attached by", doc.attach_kind],
    ["Not accounted for", unaccounted(doc.unaccounted)],
    ["Memory of maps", volume(memory)],
  ];
  return [
    h("h2", {}, "Daemon and counters"),
    factList(rows),
    failing.length
      ? h(
          "ul",
          { class: "failing" },
          failing.map((one) =>
            h("li", {}, `${one.name}: ${one.last_error ?? "failing"} (since ${at(one.since)})`),
          ),
        )
      : null,
    h(
      "dl",
      { class: "meters" },
      doc.tables.map((table) => [
        h("dt", {}, table.table),
        h(
          "dd",
          {},
          h("meter", {
            min: 0,
            max: table.capacity,
            value: table.used,
            high: table.capacity * 0.9,
            aria: { label: `${table.table} in use` },
          }),
          ` ${count(table.used)} of ${count(table.capacity)} (${percent(table.used, table.capacity)})`,
          table.gone ? `, ${count(table.gone)} gone` : "",
        ),
      ]),
    ),
  ];
}

/** Passed - classes - faults, which traffic in flight makes differ by a little. */
function unaccounted(left) {
  const packets = Math.abs(left.in_packets) + Math.abs(left.out_packets);
  return packets === 0 ? "nothing" : `${counted(packets, "packet")} in flight while reading`;
}

function balancePanel(report, route) {
  const node = report.balance.filter((row) => row.container === "(node)");
  const rows = (node.length ? node : report.balance.slice(0, 1)).flatMap((row) => [
    ["In", row.in],
    ["Out", row.out],
  ]);
  if (rows.length === 0) return null;
  const signed = (bytes) => (bytes === 0 ? "0" : `${count(bytes)} B`);
  return h(
    "section",
    { class: "panel cards" },
    panelHead(
      "Balance of the last 30 days",
      "passed = billed classes + class 0 + faults + difference",
      downloadLinks("report", { show: "balance", last: "30d", by: "total", tz: route.tz }, "balance"),
    ),
    plainTable(
      "Balance of the last 30 days",
      ["Direction", "Passed", "Billed", "Class 0", "Faults", "Difference"],
      rows.map(([name, one]) => [
        name,
        bytesCell(one.passed.bytes),
        bytesCell(one.billed.bytes),
        bytesCell(one.class_zero.bytes),
        bytesCell(one.faults.bytes),
        signed(one.difference_bytes),
      ]),
      { numbers: [1] },
    ),
    h("p", { class: "note" }, "Traffic in flight causes small differences, which the next reading reverses."),
  );
}
