// Tables that are sorted, filtered and paged in the page: a thousand containers, three thousand interfaces.

import { count, fill, h, mark, uniqueId } from "./base.js";

/** Rows of one page of a table. */
const ROWS = 50;

/**
 * A table of `columns`: `{key, label, number, optional, value(row), cell(row)}`. `value` is what the column
 * is sorted by, and `text(row)` of the options what the filter looks at.
 */
export class DataTable {
  #columns;
  #rows = [];
  #text;
  #sort;
  #page = 0;
  #filter = "";
  #empty;
  #pageRows;

  constructor({
    caption,
    columns,
    text,
    sort,
    descending = true,
    empty = "Nothing to show.",
    pageRows = ROWS,
  }) {
    this.#columns = columns.map((column) => ({
      value: (row) => row[column.key],
      cell: (row) => row[column.key],
      ...column,
    }));
    this.#text = text;
    this.#sort = { key: sort, descending };
    this.#empty = empty;
    this.#pageRows = pageRows;
    const id = uniqueId("filter");
    this.input = h("input", {
      id,
      type: "search",
      autocomplete: "off",
      spellcheck: "false",
      placeholder: "Filter",
      oninput: () => {
        this.#filter = this.input.value;
        this.#page = 0;
        this.#draw();
      },
    });
    this.filterBox =
      text
        ? h(
            "div",
            { class: "filter" },
            h("label", { for: id, class: "visually-hidden" }, `Filter: ${caption}`),
            this.input,
          )
        : null;
    this.head = h("thead");
    this.body = h("tbody");
    this.pager = h("div", { class: "pager" });
    this.table = h(
      "table",
      { class: "data" },
      h("caption", { class: "visually-hidden" }, caption),
      this.head,
      this.body,
    );
    this.scroll = h(
      "div",
      { class: "scroll", tabindex: "0", role: "region", aria: { label: caption } },
      this.table,
    );
    this.element = h("div", { class: "table" }, this.filterBox, this.scroll, this.pager);
    this.#drawHead();
  }

  /** Leaves out the columns that `isLeft` does not want. */
  keep(isLeft) {
    this.#columns = this.#columns.filter(isLeft);
    this.#drawHead();
  }

  /** Shows other rows, and keeps filter, order and page. */
  update(rows) {
    this.#rows = rows;
    // Few rows are found without a filter.
    this.filterBox?.toggleAttribute("hidden", rows.length <= 10 && this.#filter === "");
    this.#draw();
  }

  #drawHead() {
    const { key, descending } = this.#sort;
    const cells = this.#columns.map((column) => {
      const isSorted = column.key === key;
      const order = descending ? "descending" : "ascending";
      const arrow = mark("arrow", isSorted ? (descending ? "\u2193" : "\u2191") : "");
      return h(
        "th",
        {
          scope: "col",
          class: cellClass(column.number, column.optional),
          aria: { sort: isSorted ? order : undefined },
        },
        h(
          "button",
          {
            type: "button",
            class: "sort",
            data: { key: `sort ${column.key}` },
            onclick: () => this.#sortBy(column),
          },
          // The arrow is on the side where nothing is aligned to.
          column.number ? [arrow, column.label] : [column.label, arrow],
        ),
      );
    });
    fill(this.head, h("tr", {}, cells));
  }

  #sortBy(column) {
    const isSame = this.#sort.key === column.key;
    this.#sort = { key: column.key, descending: isSame ? !this.#sort.descending : Boolean(column.number) };
    this.#page = 0;
    this.#drawHead();
    this.#draw();
  }

  /** The rows that pass the filter, in their order. */
  #shown() {
    const words = this.#filter.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = words.length
      ? this.#rows.filter((row) => {
          const text = this.#text(row).toLowerCase();
          return words.every((word) => text.includes(word));
        })
      : [...this.#rows];
    const column = this.#columns.find((one) => one.key === this.#sort.key);
    if (!column?.value) return rows;
    const sign = this.#sort.descending ? -1 : 1;
    return rows.sort((a, b) => sign * compare(column.value(a), column.value(b)));
  }

  #draw() {
    const rows = this.#shown();
    const pages = Math.max(1, Math.ceil(rows.length / this.#pageRows));
    this.#page = Math.min(this.#page, pages - 1);
    const first = this.#page * this.#pageRows;
    const shown = rows.slice(first, first + this.#pageRows);
    const line = (row) =>
      h(
        "tr",
        {},
        this.#columns.map((column) => {
          const kind = { class: cellClass(column.number, column.optional) };
          return column.header
            ? h("th", { scope: "row", ...kind }, column.cell(row))
            : h("td", kind, column.cell(row));
        }),
      );
    const nothing =
      this.#filter && this.#rows.length ? `Nothing matches \u201c${this.#filter}\u201d.` : this.#empty;
    fill(
      this.body,
      shown.length
        ? shown.map(line)
        : h("tr", {}, h("td", { colspan: this.#columns.length, class: "empty" }, nothing)),
    );
    const go = (page, label, isPossible) =>
      h(
        "button",
        {
          type: "button",
          disabled: !isPossible,
          data: { key: `page ${label}` },
          onclick: () => {
            this.#page = page;
            this.#draw();
          },
        },
        label,
      );
    const range = rows.length
      ? `${count(first + 1)}\u2013${count(first + shown.length)} of ${count(rows.length)}`
      : "";
    const isFiltered = rows.length !== this.#rows.length ? ` (${count(this.#rows.length)} in all)` : "";
    fill(
      this.pager,
      pages > 1 ? go(this.#page - 1, "Previous", this.#page > 0) : null,
      h("span", { aria: { live: "polite" } }, rows.length > 10 || isFiltered ? range + isFiltered : ""),
      pages > 1 ? go(this.#page + 1, "Next", this.#page < pages - 1) : null,
    );
  }
}

/** Numbers are aligned to the right; optional columns are left out where there is no room. */
function cellClass(isNumber, isOptional) {
  return [isNumber && "number", isOptional && "optional"].filter(Boolean).join(" ");
}

/** Numbers by value, ids that are numbers too, before other text; nothing comes last. */
export function compare(a, b) {
  if (a === b) return 0;
  if (a === null || a === undefined) return -1;
  if (b === null || b === undefined) return 1;
  if (typeof a === "number" && typeof b === "number") return a - b;
  const [x, y] = [a, b].map(String);
  const isNumber = [x, y].map((text) => /^\d+$/.test(text));
  if (isNumber[0] && isNumber[1]) return Number(x) - Number(y) || (x < y ? -1 : 1);
  if (isNumber[0] !== isNumber[1]) return isNumber[0] ? -1 : 1;
  return x < y ? -1 : 1;
}

/**
 * A small table that is neither sorted nor paged. `rows` hold the children of cells, the first a header;
 * `numbers` are the first column of numbers and the one behind the last, as `slice` takes them, and `optional` are
 * indexes of columns.
 */
export function plainTable(caption, header, rows, { numbers = [0, 0], optional = [] } = {}) {
  const areNumbers = header.map((_, at) => at).slice(...numbers);
  const kind = (at) => ({
    class: cellClass(areNumbers.includes(at), optional.includes(at)),
    data: { label: header[at] },
  });
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", aria: { label: caption } },
    h(
      "table",
      { class: "data" },
      h("caption", { class: "visually-hidden" }, caption),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          header.map((text, at) => h("th", { scope: "col", ...kind(at) }, text)),
        ),
      ),
      h(
        "tbody",
        {},
        rows.map((row) =>
          h(
            "tr",
            {},
            row.map((cell, at) =>
              at === 0 ? h("th", { scope: "row", ...kind(at) }, cell) : h("td", kind(at), cell),
            ),
          ),
        ),
      ),
    ),
  );
}
