// The frame of the page: header, notices, and which page is shown. The pages are in `pages/`.

import { ApiError, get, hasToken, setToken } from "./api.js";
import { clock, duration, fill, h } from "./base.js";
import { fragment, link, parse } from "./route.js";
import { show as container } from "./pages/container.js";
import { showClasses as classes, showContainers as containers } from "./pages/lists.js";
import { show as node } from "./pages/node.js";
import { show as overview } from "./pages/overview.js";

const PAGES = { overview, containers, container, classes, node };
const TABS = [
  ["overview", "Overview"],
  ["containers", "Containers"],
  ["classes", "Classes"],
  ["node", "Node"],
];

const $ = (id) => document.getElementById(id);

/** What answers: `live`, `lost` since a time, or `file` without a daemon. */
const connection = { state: "wait", since: Date.now(), zone: "UTC", sentence: "", isFile: false };
let facts = null;
let shown = null;
let route = parse(location.hash);

/** What a page may do to the frame. */
const frame = {
  /** The name of the node, once it is known, and the ledger's zone. */
  setNode(name, zone) {
    if (name) $("node").textContent = name;
    if (zone) connection.zone = zone;
    title();
  },
  /** What is known of the node: `{node, live, zone}`; `doc` is an overview that was just read. */
  facts(doc) {
    if (doc) facts = Promise.resolve(doc);
    facts ??= get("overview", { count: 1 });
    return facts.then(
      ({ node, live, ledger }) => {
        frame.setNode(node, ledger?.zone);
        connection.isFile = !live;
        return { node, live, zone: ledger?.zone ?? null };
      },
      (error) => {
        facts = null;
        throw error;
      },
    );
  },
  /** The last request or stream worked. What is shown is read again if it did not before. */
  ok() {
    const state = connection.isFile ? "file" : "live";
    if (connection.state === state) return;
    const wasLost = connection.state === "lost";
    Object.assign(connection, { state, since: Date.now(), sentence: "" });
    drawConnection();
    if (wasLost) shown?.load?.();
  },
  /** It did not. Returns the sentence that the page shows, if it has nothing else to show. */
  failed(error) {
    if (error.name === "AbortError") return null;
    // A mistake in this page is not an answer that is missing.
    if (!(error instanceof ApiError)) throw error;
    if (error.status === 401) return void askForToken(error);
    if (error.status === 0 || error.status >= 500) {
      const since = connection.state === "lost" ? connection.since : Date.now();
      const isAnswered = error.status > 0;
      Object.assign(connection, { state: "lost", since, sentence: error.message, isAnswered });
      drawConnection();
    }
    return error.status === 0 ? null : error.message;
  },
  /** What a stream of live rates says of itself. Documents may well be answered while it is not. */
  stream(state, error) {
    if (state === "lost" && !(error.status > 0)) return void frame.failed(error);
    if (state === "lost" && error.status === 401) return void askForToken(error);
    $("stream")?.remove();
    if (error)
      $("notices").append(h("p", { id: "stream", class: "notice" }, `No live rates: ${error.message}`));
    else frame.ok();
  },
  /** The title of the document. */
  setTitle(text) {
    frame.heading = text;
    title();
  },
  /** Shows the page again, for example after a token was entered. */
  again: () => show(true),
  go: (changes) => {
    location.hash = fragment(route, changes);
  },
  heading: "",
};

function title() {
  const name = $("node").textContent;
  document.title = [frame.heading, name, "trafctl"].filter(Boolean).join(" \u2013 ");
}

function drawConnection() {
  const { state, since, zone, sentence } = connection;
  const seconds = (Date.now() - since) / 1000;
  const isLost = state === "lost" && seconds >= 1;
  $("connection").className = `connection ${isLost ? "lost" : state}`;
  const words = { live: "Live", file: "Recorded", wait: "", lost: "" };
  const text = isLost ? "No answer" : words[state];
  if ($("connection").textContent !== text) $("connection").textContent = text;
  const notice = $("lost");
  if (!isLost) return void notice?.remove();
  const at = clock(since / 1000, zone);
  const what = connection.isAnswered ? "trafctl cannot answer" : "No answer from trafctl";
  const line = `${what} since ${at}. The figures below are from then; it is tried again.`;
  const detail = ` (${sentence}, for ${duration(seconds)})`;
  if (notice) return void (notice.lastChild.textContent = detail);
  $("notices").prepend(
    h(
      "div",
      { id: "lost", class: "notice error", role: "alert" },
      h("strong", {}, line),
      h("span", { aria: { live: "off" } }, detail),
    ),
  );
}
setInterval(drawConnection, 1000);
// A stream is opened again by itself. Documents are asked for again here.
setInterval(() => connection.state === "lost" && shown?.load?.(), 2000);

function askForToken(error) {
  if ($("token")) return;
  const input = h("input", { id: "token", type: "password", autocomplete: "off", required: true });
  const text = hasToken() ? `The token was refused: ${error.message}` : "This API needs a token.";
  const form = h(
    "form",
    {
      class: "notice",
      onsubmit: (event) => {
        event.preventDefault();
        setToken(input.value.trim());
        form.remove();
        frame.again();
      },
    },
    h("p", {}, text),
    h("label", { for: "token" }, "Token (of [api] token_file) "),
    input,
    " ",
    h("button", { type: "submit" }, "Use"),
  );
  $("notices").append(form);
  input.focus();
}

function drawNav() {
  const current = route.page === "container" ? "containers" : route.page;
  fill(
    $("nav"),
    TABS.map(([page, label]) =>
      h(
        "a",
        {
          href: link(route, page),
          data: { key: `nav ${page}` },
          aria: { current: page === current ? "page" : undefined },
        },
        label,
      ),
    ),
  );
}

/** Shows the page of the address. A page that is already there may take the new parameters itself. */
function show(isForced = false) {
  const before = route;
  route = parse(location.hash);
  drawNav();
  const isSame = shown && before.page === route.page && before.id === route.id;
  if (isSame && !isForced && shown.change) return void shown.change(route);
  shown?.stop();
  $("stream")?.remove();
  const main = $("main");
  const page = PAGES[route.page] ?? notFound;
  fill(main);
  shown = page({ main, route, frame });
  if (before.page !== route.page || before.id !== route.id) {
    scrollTo(0, 0);
    main.focus({ preventScroll: true });
  }
}

function notFound({ main, route: unknown, frame: { setTitle } }) {
  setTitle("No such page");
  fill(
    main,
    h("h1", {}, "No such page"),
    h("p", {}, `There is no page \u201c${unknown.page}\u201d. `, h("a", { href: "#/" }, "Overview")),
  );
  return { stop() {} };
}

$("skip").addEventListener("click", (event) => {
  event.preventDefault();
  $("main").focus();
});
addEventListener("hashchange", () => show());
show();
