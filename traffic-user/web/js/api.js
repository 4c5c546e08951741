// Requests to the API, and the live rates. All addresses are relative, so that the page works under any path.

import { seconds } from "./base.js";

const BASE = "api/v1/";
/** Without the name and password that the address may have: fetch refuses an address with them. */
const HERE = location.origin + location.pathname;
const TOKEN = "trafctl-token";

/** A refusal or failure: `status` is 0 if nothing answered. */
export class ApiError extends Error {
  constructor(status, sentence, retryAfter = null) {
    super(sentence);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** The query string of parameters; arrays are repeated, nothing is left out. */
export function query(params) {
  const pairs = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    if (value === undefined || value === null || value === "") continue;
    for (const one of Array.isArray(value) ? value : [value]) pairs.append(name, String(one));
  }
  const text = pairs.toString();
  return text ? `?${text}` : "";
}

/** The relative address of a document. */
export function address(path, params = {}) {
  return BASE + path + query(params);
}

/** Whether a token was entered in this tab. */
export function hasToken() {
  return sessionStorage.getItem(TOKEN) !== null;
}

/** Keeps the token until the tab is closed. */
export function setToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

async function request(url, { signal, accept }) {
  const headers = { Accept: accept };
  const token = sessionStorage.getItem(TOKEN);
  if (token !== null) headers.Authorization = `Bearer ${token}`;
  let answer;
  try {
    answer = await fetch(new URL(url, HERE), {
      headers,
      signal,
      cache: "no-cache",
      credentials: "same-origin",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "nothing answers");
  }
  if (answer.ok) return answer;
  let sentence = `status ${answer.status}`;
  try {
    sentence = (await answer.json()).error ?? sentence;
  } catch {
    /* A proxy's page instead of a document. */
  }
  throw new ApiError(answer.status, sentence, Number(answer.headers.get("Retry-After")) || null);
}

/** Fetches a document. */
export async function get(path, params = {}, signal = undefined) {
  const answer = await request(address(path, params), { signal, accept: "application/json" });
  try {
    return await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "the answer ended early");
  }
}

/** Fetches a file and hands it to the browser, which also works where a token is needed. */
export async function download(url, name) {
  const answer = await request(url, { accept: "*/*" });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await answer.blob());
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** No event for this long, and the stream counts as gone. The daemon sends one each second. */
const SILENCE_MS = 10_000;
const RETRY_MS = 2_000;

/**
 * Server-sent events by fetch, because an EventSource cannot send a token. `onevent(name, document)` for
 * each event; `onstate("live" | "lost", error)` when the stream begins and ends. It is opened again until
 * `signal` ends it.
 */
export async function stream(path, params, { signal, onevent, onstate }) {
  while (!signal.aborted) {
    const attempt = new AbortController();
    const stop = () => attempt.abort();
    signal.addEventListener("abort", stop);
    let silence = setTimeout(stop, SILENCE_MS);
    let failure = new ApiError(0, "the stream ended");
    try {
      const answer = await request(address(path, params), {
        signal: attempt.signal,
        accept: "text/event-stream",
      });
      onstate("live");
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        clearTimeout(silence);
        silence = setTimeout(stop, SILENCE_MS);
        const blocks = (text + value).split(/\r?\n\r?\n/);
        text = blocks.pop();
        blocks.forEach((block) => dispatch(block, onevent));
      }
    } catch (error) {
      if (error instanceof ApiError) failure = error;
    }
    clearTimeout(silence);
    attempt.abort();
    signal.removeEventListener("abort", stop);
    if (signal.aborted) return;
    onstate("lost", failure);
    // Without a daemon there is nothing to wait for; without a token nothing works before it is entered.
    if (failure.status === 404 || failure.status === 401) return;
    await pause((failure.retryAfter ?? 0) * 1000 || RETRY_MS, signal);
  }
}

function dispatch(block, onevent) {
  let name = "message";
  const data = [];
  for (const line of block.split(/\r?\n/)) {
    if (line.startsWith("event:")) name = line.slice(6).trim();
    else if (line.startsWith("data:")) data.push(line.slice(5).trimStart());
  }
  if (data.length === 0) return;
  let document;
  try {
    document = JSON.parse(data.join("\n"));
  } catch {
    return;
  }
  onevent(name, document);
}

function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener(
      "abort",
      () => {
        clearTimeout(timer);
        resolve();
      },
      { once: true },
    );
  });
}

/** How much is kept, and shown. */
export const LIVE_SECONDS = 300;

/** What was received, by stream, so that a page that is opened again has its last minutes. */
const histories = new Map();

/**
 * Follows `rates` with parameters until `stop()`. `onsample(document, history)` for each event;
 * `onstate(state, error)` as of `stream`. Nothing is read while the tab is hidden.
 */
export function follow(params, { onsample, onstate }) {
  const key = JSON.stringify(params);
  if (!histories.has(key)) {
    if (histories.size > 4) histories.delete(histories.keys().next().value);
    histories.set(key, []);
  }
  const history = histories.get(key);
  let current = null;

  const begin = () => {
    if (current || document.hidden) return;
    current = new AbortController();
    stream("rates", params, {
      signal: current.signal,
      onstate,
      onevent: (name, doc) => {
        if (name === "failed") return onstate("failed", new Error(doc.error));
        if (name !== "rates") return;
        const to = seconds(doc.time);
        // The clock of the node was set back: what came before has no place in this plot.
        if (history.length && to < history[history.length - 1].to - 1) history.length = 0;
        const classes = new Map(doc.classes.map((one) => [one.class, one]));
        history.push({ from: to - doc.seconds, to, seconds: doc.seconds, classes, faults: doc.no_class });
        while (history.length && history[0].to < to - LIVE_SECONDS - 5) history.shift();
        onstate("sample");
        onsample(doc, history);
      },
    });
  };
  const end = () => {
    current?.abort();
    current = null;
  };
  const turn = () => (document.hidden ? end() : begin());
  document.addEventListener("visibilitychange", turn);
  begin();
  return {
    history,
    stop() {
      document.removeEventListener("visibilitychange", turn);
      end();
    },
  };
}

/** The history as columns of a plot: steps with their own length, and nothing where nothing was received. */
export function columns(history, classes) {
  const times = [];
  const steps = [];
  for (const sample of history) {
    const end = times[times.length - 1];
    if (end === undefined) times.push(sample.from);
    else if (sample.from - end > 0.5) {
      times.push(sample.from);
      steps.push(null);
    }
    // The clock of the node may be set.
    if (sample.to <= times[times.length - 1]) continue;
    times.push(sample.to);
    steps.push(sample);
  }
  const values = (number, field) =>
    steps.map((sample) => {
      if (!sample) return null;
      return ((sample.classes.get(number)?.[field] ?? 0) * 8) / sample.seconds;
    });
  return {
    times,
    values: classes.map((number) => ({
      number,
      in: values(number, "in_bytes"),
      out: values(number, "out_bytes"),
    })),
  };
}
