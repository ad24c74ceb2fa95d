/* The charts and the table of medtune/evaluate/report.py. Data come from the page's two JSON elements
   (medtune/evaluate/page/rows.py says what a row is) and reach the page as text, never as markup. */
(function () {
  "use strict";

  const byId = (id) => document.getElementById(id);
  const read = (id) => JSON.parse(byId(id).textContent);
  const NEITHER = "–";
  const CHANGES = ["lost", "both wrong", "both right", "gained"];
  const TONES = ["bad", "plain", "good"];
  /* Where only question and verdict have room; a row's details have the rest. */
  const narrow = window.matchMedia("(max-width: 800px)");

  function drawCharts(charts) {
    // `ast` has Vega interpret its expressions: the page's policy lets no text become code.
    const options = { actions: false, renderer: "svg", ast: true };
    for (const [id, spec] of Object.entries(charts)) {
      window.vegaEmbed(byId(id), spec, options).catch((error) => {
        byId(id).textContent = `This chart could not be drawn: ${error.message}`;
      });
    }
  }

  function element(name, text, className) {
    const made = document.createElement(name);
    made.textContent = text;
    if (className) made.className = className;
    return made;
  }

  function fill(select, names) {
    names.forEach((name, number) => select.append(new Option(name, String(number))));
  }

  function changeOf(answers, data) {
    const [before, after] = [answers[data.base][1], answers[data.tuned][1]].map((match) => match === 2);
    if (before === after) return before ? 2 : 1;
    return after ? 3 : 0;
  }

  /* What the table reads of a row; `other` is searched and not shown. */
  function summary([kind, id, question, context, right, , answers, relative], data, number) {
    return {
      number,
      kind: data.kinds[kind],
      question,
      right: right.join(" / "),
      tuned: answers[data.tuned][0],
      match: answers[data.tuned][1],
      change: changeOf(answers, data),
      similarity: relative ? relative[2] : -1,
      other: [id, context || "", ...answers.filter(Boolean).map(([text]) => text)].join("\n"),
    };
  }

  function shownText() {
    const text = window.DataTable.render.text();
    return {
      ...text,
      display: (value) => `<div class="clamp">${text.display(value)}</div>`,
    };
  }

  /* A column of one of some fixed words, ordered by their place. */
  function chips(words, toneOf) {
    return (value, type) => {
      if (type === "sort" || type === "type") return value;
      return type === "display" ? `<span class="chip ${toneOf(value)}">${words[value]}</span>` : words[value];
    };
  }

  function columns(data) {
    const text = { render: shownText(), type: "string" };
    return [
      {
        data: "number",
        title: '<span class="sr">Details</span>',
        className: "open",
        orderable: false,
        searchable: false,
        type: "num",
        render: (number, type) =>
          type === "display"
            ? `<button type="button" class="more" aria-expanded="false" aria-label="Details of question ${number + 1}"></button>`
            : number,
      },
      { data: "kind", title: "Kind", className: "short wide", ...text },
      { data: "question", title: "Question", ...text },
      { data: "right", title: "Right answer", className: "wide", ...text },
      { data: "tuned", title: "Tuned answer", className: "wide", ...text },
      {
        data: "match",
        title: "Verdict",
        className: "short",
        searchable: false,
        type: "num",
        render: chips(data.matches, (match) => TONES[match]),
      },
      {
        data: "change",
        title: "Change",
        className: "short wide",
        searchable: false,
        type: "num",
        render: chips(CHANGES, (change) => ["bad", "plain", "plain", "good"][change]),
      },
      {
        data: "similarity",
        title: "Nearest",
        className: "number wide",
        searchable: false,
        type: "num",
        render: (value, type) => (type === "display" ? (value < 0 ? NEITHER : value.toFixed(2)) : value),
      },
      { data: "other", title: "Other", visible: false, ...text },
    ];
  }

  function details([kind, id, question, context, right, choices, answers, relative], data) {
    const list = element("dl", "", "details");
    const add = (name, text, ...more) => {
      const value = element("dd", text);
      value.append(...more);
      list.append(element("dt", name), value);
    };
    if (context) add("Context", context);
    add("Question", question);
    if (choices) add("Choices", choices.map((choice) => `– ${choice}`).join("\n"));
    add(right.length > 1 ? "Right answers" : "Right answer", right.join("\n"));
    answers.forEach((answer, model) => {
      if (!answer) return;
      const [text, match, isCutOff] = answer;
      const marks = [element("span", data.matches[match], `chip ${TONES[match]}`)];
      if (isCutOff) marks.push(element("span", "cut off", "chip"));
      add(data.models[model], text || "(nothing)", ...marks);
    });
    if (relative) {
      add("Nearest training question", `${relative[1]}\n${relative[0]}, similarity ${relative[2].toFixed(2)}`);
    } else {
      add("Nearest training question", "none of this kind");
    }
    add("Kind and id", `${data.kinds[kind]}, ${id}`);
    return list;
  }

  function passes([kind, , , , , , answers, relative], filters, data) {
    if (filters.kind !== "" && kind !== Number(filters.kind)) return false;
    if (filters.match !== "" && answers[data.tuned][1] !== Number(filters.match)) return false;
    if (filters.change !== "" && changeOf(answers, data) !== Number(filters.change)) return false;
    const isNear = relative !== null && relative[3];
    return filters.relative === "" || isNear === (filters.relative === "yes");
  }

  function makeTable(data) {
    const ITEMS = ["kind", "match", "change", "relative"];
    const filters = {};
    const readFilters = () => ITEMS.forEach((name) => (filters[name] = byId(name).value));
    readFilters();
    const table = new window.DataTable("#table", {
      data: data.rows.map((row, number) => summary(row, data, number)),
      columns: columns(data),
      deferRender: true,
      autoWidth: false,
      order: [],
      pageLength: 25,
      lengthMenu: [10, 25, 50, 100],
      layout: { topStart: null, topEnd: null, bottomStart: "pageLength", bottomEnd: "paging" },
      language: { emptyTable: "No examples", zeroRecords: "No question matches", lengthLabels: {} },
    });
    const all = data.rows.length.toLocaleString("en");
    const announce = () => {
      byId("shown").textContent = `${table.page.info().recordsDisplay.toLocaleString("en")} of ${all} questions`;
    };
    const fit = () => table.columns(".wide").visible(!narrow.matches);
    narrow.addEventListener("change", fit);
    fit();
    table.on("draw", announce);
    table.search.fixed("filters", (text, row) => passes(data.rows[row.number], filters, data));
    announce();
    return {
      table,
      filter() {
        readFilters();
        table.search(byId("search").value).draw();
      },
    };
  }

  function openOnClick(table, data) {
    byId("table").addEventListener("click", (event) => {
      const button = event.target.closest("button.more");
      if (!button) return;
      const row = table.row(button.closest("tr"));
      const isOpen = row.child.isShown();
      if (isOpen) row.child.hide();
      else row.child(details(data.rows[row.data().number], data)).show();
      button.setAttribute("aria-expanded", String(!isOpen));
    });
  }

  function main() {
    drawCharts(read("charts-data"));
    const data = read("examples-data");
    fill(byId("kind"), data.kinds);
    fill(byId("match"), data.matches);
    fill(byId("change"), CHANGES);
    const { table, filter } = makeTable(data);
    openOnClick(table, data);
    let waiting;
    byId("filters").addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(filter, 120);
    });
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
    byId("filters").addEventListener("reset", () => setTimeout(filter));
  }

  main();
})();
