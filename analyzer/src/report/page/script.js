"use strict";
// The list of cases (filter, search, open, link) and the charts. Text of sessions is only ever set as text, never as
// markup; the content security policy of the page lets nothing else run.
(() => {
  const PAGE = 25;
  const at = (id) => document.getElementById(id);
  const make = (tag, name, text) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const inflate = async (base64) => {
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    return new Response(stream).text();
  };
  const canInflate = typeof DecompressionStream === "function";

  // === light and dark

  const theme = at("theme");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("foreshadow-theme", root.dataset.theme); } catch { /* storage is switched off */ }
  });

  // === charts

  const figures = JSON.parse(at("figures").textContent);
  const tone = (name) => `var(--${name})`;
  const SYMBOLS = { good: "circle", bad: "square", warn: "triangle", open: "diamond" };
  const chart = (options) => {
    const svg = Plot.plot({ className: "chart", style: { fontSize: "13px", fontFamily: "inherit" }, ...options });
    // The box around it says in words what it shows; the names of its parts say nothing more.
    for (const part of svg.querySelectorAll("[aria-label]")) part.removeAttribute("aria-label");
    return svg;
  };

  const intervals = ({ low, high }, rows, width, last) => {
    const narrow = width < 640;
    const y = (row) => row.name;
    const x = { domain: [low, high], axis: null };
    const zone = (x1, x2, fill) => Plot.rect([0], { x1: () => x1, x2: () => x2, fill });
    const stroke = { value: (row) => tone(row.tone), scale: null };
    const arrow = (x, rotate) => ({ x, y, symbol: "triangle", rotate, r: 5, fill: stroke, stroke: "var(--paper)" });
    const marked = rows.filter((row) => row.effect !== null);
    // A mark of its own for each tone: colour is not the only carrier.
    const dots = (rows, options) => Object.entries(SYMBOLS).map(([tone, symbol]) =>
      Plot.dot(rows.filter((row) => row.tone === tone), { x: "effect", y, r: 6, symbol, strokeWidth: 2.5, stroke, ...options }));
    const beside = (text, options) => Plot.text(rows, { y, text, frameAnchor: "right", textAnchor: "start", dx: 12, ...options });
    const aside = narrow
      ? [Plot.text(rows, { y, text: (row) => `${row.name}: ${row.state}`, frameAnchor: "left", textAnchor: "start", dx: 4, dy: -19, fontWeight: (row) => (row.decides ? 700 : 400), fill: "var(--ink)" })]
      : [
          Plot.text(rows.filter((row) => row.decides), { y, text: "name", frameAnchor: "left", textAnchor: "end", dx: -12, fontWeight: 700, fill: "var(--ink)" }),
          Plot.text(rows.filter((row) => !row.decides), { y, text: "name", frameAnchor: "left", textAnchor: "end", dx: -12, fill: "var(--ink)" }),
          beside((row) => row.effect_text, { dy: -8, fontWeight: 700, fill: "var(--ink)" }),
          beside((row) => `${row.interval_text}; ${row.state}`, { dy: 8, fill: "var(--quiet)", fontSize: 12 }),
        ];
    return chart({
      width, height: rows.length * (narrow ? 58 : 44) + (last ? 46 : 22),
      marginLeft: narrow ? 8 : 150, marginRight: narrow ? 8 : 275, marginTop: 22, marginBottom: last ? 24 : 0,
      x, y: { domain: rows.map(y), type: "band", axis: null, padding: 0 },
      marks: [
        zone(low, -1, "var(--zone-worse)"), zone(-1, 0, "var(--zone-tolerated)"), zone(0, high, "var(--zone-better)"),
        Plot.ruleX([0], { stroke: "var(--ink)", strokeWidth: 1.5 }),
        Plot.ruleX([-1], { stroke: "var(--bad)", strokeWidth: 1.5, strokeDasharray: "5 3" }),
        Plot.text([[-1, "margin"]], { x: "0", text: "1", frameAnchor: "top", textAnchor: "end", dx: 4, dy: -10, fill: "var(--bad)", fontSize: 12 }),
        Plot.text([[0, "no change"]], { x: "0", text: "1", frameAnchor: "top", textAnchor: "start", dx: -4, dy: -10, fill: "var(--quiet)", fontSize: 12 }),
        ...(last ? [Plot.text([[low, "← worse", "start"]], { x: "0", text: "1", frameAnchor: "bottom", textAnchor: "start", dy: 16, fill: "var(--quiet)", fontSize: 12 }),
          Plot.text([[high, "better →"]], { x: "0", text: "1", frameAnchor: "bottom", textAnchor: "end", dy: 16, fill: "var(--quiet)", fontSize: 12 })] : []),
        Plot.ruleY(rows, { y, x1: "low", x2: "high", stroke, strokeWidth: 3 }),
        Plot.tickX(rows.filter((row) => !row.cut_low), { x: "low", y, stroke, strokeWidth: 3, insetTop: 15, insetBottom: 15 }),
        Plot.tickX(rows.filter((row) => !row.cut_high), { x: "high", y, stroke, strokeWidth: 3, insetTop: 15, insetBottom: 15 }),
        Plot.dot(rows.filter((row) => row.cut_low), arrow("low", -90)),
        Plot.dot(rows.filter((row) => row.cut_high), arrow("high", 90)),
        ...dots(marked.filter((row) => row.decides), { fill: stroke }),
        ...dots(marked.filter((row) => !row.decides), { fill: "var(--paper)" }),
        ...aside,
      ],
    });
  };

  const moves = (rows, width) => {
    const narrow = width < 640;
    const parts = rows.flatMap((row) => [["worse", "bad"], ["same", "open"], ["better", "good"]].map(([part, tone]) => ({ name: row.name, part, tone, count: row[part] })));
    const total = Math.max(...rows.map((row) => row.worse + row.same + row.better), 1);
    // Parts too thin for their number carry none; the caption and the table of the same numbers do.
    const told = (row) => (row.count / total > 0.1 ? `${row.count} ${row.part}` : row.count / total > 0.02 ? `${row.count}` : "");
    return chart({
      width, height: rows.length * 30 + 10, marginLeft: narrow ? 110 : 150, marginRight: narrow ? 8 : 275, marginTop: 4, marginBottom: 4,
      x: { axis: null, domain: [0, total] }, y: { domain: rows.map((row) => row.name), label: null, tickSize: 0, padding: 0.25 },
      marks: [
        Plot.barX(parts, Plot.stackX({ x: "count", y: "name", z: "part", order: ["worse", "same", "better"], fill: { value: (row) => `var(--${row.tone}-soft)`, scale: null }, stroke: { value: (row) => tone(row.tone), scale: null }, insetLeft: 1, insetRight: 1 })),
        Plot.text(parts, Plot.stackX({ x: "count", y: "name", z: "part", order: ["worse", "same", "better"], text: told, fill: { value: (row) => tone(row.tone), scale: null }, fontWeight: 600 })),
        ...(narrow ? [] : [Plot.text(rows, { y: "name", text: (row) => `${row.worse} worse, ${row.same} same, ${row.better} better`, frameAnchor: "right", textAnchor: "start", dx: 12, fill: "var(--quiet)" })]),
      ],
    });
  };

  const driftMap = (points, width) => {
    const [rest, worse] = [points.filter((point) => !point.worse), points.filter((point) => point.worse)];
    const at = { x: "drift", y: "dispersion", title: "case" };
    const map = chart({
      width, height: Math.min(420, Math.max(260, width * 0.45)), marginLeft: 64, marginBottom: 44, marginTop: 24, marginRight: 16,
      x: { label: "drift beyond the lanes' own spread →", labelAnchor: "center", grid: true, nice: true }, y: { label: "↑ more varied than before", grid: true, nice: true },
      marks: [
        Plot.ruleX([0], { stroke: "var(--quiet)" }), Plot.ruleY([0], { stroke: "var(--quiet)" }),
        Plot.dot(rest, { ...at, r: 3.5, fill: "var(--open)", fillOpacity: 0.55, className: "calm" }),
        Plot.dot(worse, { ...at, r: 5, symbol: "times", stroke: "var(--bad)", strokeWidth: 2, className: "worse" }),
      ],
    });
    // A click opens the case; the table beside it and the list of cases are the way of the keyboard.
    for (const [name, part] of [["calm", rest], ["worse", worse]]) {
      map.querySelectorAll(`.${name} > *`).forEach((mark, place) => mark.addEventListener("click", () => { location.hash = part[place].anchor; }));
    }
    return map;
  };

  const told = (rows) => rows.map((row) => `${row.name}: effect ${row.effect_text}, interval ${row.interval_text}, margin ${row.margin_text}: ${row.state}`).join(". ");

  const course = (points, width) => {
    const names = [...new Set(points.map((point) => point.name))];
    const pictures = make("div", "pair");
    const half = width < 760 ? width : Math.floor((width - 16) / 2);
    for (const [test, title] of [["block", "Proven worse: level"], ["approve", "Shown to keep the margin: level"]]) {
      const last = names.map((name) => points.filter((point) => point.name === name).at(-1));
      const box = make("div");
      box.append(make("p", "divide", title), chart({
        width: half, height: 220, marginLeft: 56, marginRight: 110, marginBottom: 40, marginTop: 12,
        x: { label: "cases looked at →", labelAnchor: "center" },
        y: { type: "log", domain: [1, 1e-4], label: null, tickFormat: (p) => (p < 0.001 ? "0.0001" : String(p)), ticks: [1, 0.1, 0.01, 0.001, 1e-4], grid: true },
        marks: [
          Plot.ruleY([figures.alpha], { stroke: "var(--bad)", strokeDasharray: "5 3" }),
          Plot.lineY(points, { x: "cases", y: test, z: "name", stroke: "var(--quiet)", strokeWidth: 1.5, curve: "step-after" }),
          Plot.dot(points, { x: "cases", y: test, r: 3.5, fill: { value: (point) => (point[test] <= figures.alpha ? (test === "block" ? "var(--bad)" : "var(--good)") : "var(--paper)"), scale: null }, stroke: "var(--ink)" }),
          // Names of lines that end close to each other would cover each other: the first is written, the table has them all.
          Plot.text(last.filter((one, place) => last.findIndex((other) => Math.abs(Math.log10(other[test]) - Math.log10(one[test])) < 0.3) === place),
            { x: "cases", y: test, text: "name", textAnchor: "start", dx: 8, fill: "var(--ink)" }),
        ],
      }));
      pictures.append(box);
    }
    return [pictures];
  };
  const calibration = (rows, width) => [chart({
    width, height: rows.length * 34 + 60, marginLeft: width < 640 ? 110 : 150, marginRight: 24, marginTop: 12, marginBottom: 40,
    x: { label: "times the margin →", labelAnchor: "center", grid: true, zero: true }, y: { domain: rows.map((row) => row.name), label: null, tickSize: 0, type: "band" },
    marks: [
      Plot.ruleX([1], { stroke: "var(--bad)", strokeDasharray: "5 3" }),
      Plot.ruleY(rows, { y: "name", x1: "detectable", x2: "approvable", stroke: "var(--line)", strokeWidth: 2 }),
      Plot.dot(rows, { x: "detectable", y: "name", symbol: "square", r: 6, fill: "var(--open)" }),
      Plot.dot(rows, { x: "approvable", y: "name", symbol: "circle", r: 6, fill: "var(--paper)", stroke: "var(--open)", strokeWidth: 2.5 }),
    ],
  })];

  // Each drawing: where it goes, whether there is anything to draw, the picture in words, and the picture.
  const drawings = [
    ["intervals", figures.intervals.rows, told,
      (rows, width) => {
        const [deciding, reported] = [rows.filter((row) => row.decides), rows.filter((row) => !row.decides)];
        const pictures = [];
        if (deciding.length) pictures.push(intervals(figures.intervals, deciding, width, !reported.length));
        if (deciding.length && reported.length) pictures.push(make("p", "divide", "Reported only"));
        if (reported.length) pictures.push(intervals(figures.intervals, reported, width, true));
        return pictures;
      }],
    ["moves", figures.moves, (rows) => rows.map((row) => `${row.name}: ${row.worse} cases got worse, ${row.same} stayed, ${row.better} got better`).join(". "),
      (rows, width) => [moves(rows, width)]],
    ["course-map", figures.course, (points) => points.map((point) => `${point.name} after ${point.cases} cases: block ${point.block}, approve ${point.approve}`).join(". "), course],
    ["slices-map", figures.slices?.rows, told, (rows, width) => [intervals(figures.slices, rows, width, true)]],
    ["calibration-map", figures.calibration, (rows) => rows.map((row) => `${row.name}: a loss of ${row.detectable} margins would be seen, a margin ${row.approvable} times as wide would approve`).join(". "), calibration],
    ["drift-map", figures.drift, (points) => `${points.length} cases by how far their answers moved; the farthest: ${points.slice(0, 3).map((point) => `${point.case} ${point.drift}`).join(", ")}`,
      (points, width) => [driftMap(points, width)]],
  ];

  const drawAll = () => {
    for (const [id, rows, words, picture] of drawings) {
      const figure = at(id);
      if (!figure || !rows?.length) continue;
      figure.hidden = false;
      let box = figure.querySelector(".picture");
      if (!box) {
        box = make("div", "picture");
        box.setAttribute("role", "img");
        box.setAttribute("aria-label", words(rows));
        figure.insertBefore(box, figure.querySelector("figcaption"));
      }
      const width = Math.round(box.clientWidth);
      if (width > 0) box.replaceChildren(...picture(rows, width));
    }
  };
  const loadCharts = async () => {
    const text = await inflate(at("charts").textContent);
    const script = make("script");
    // Where the browser knows Trusted Types nothing but this policy may make a script; the digest in the page's policy
    // says which.
    script.text = self.trustedTypes ? trustedTypes.createPolicy("charts", { createScript: (text) => text }).createScript(text) : text;
    document.head.append(script);
    drawAll();
    let width = innerWidth, wait;
    addEventListener("resize", () => {
      if (innerWidth === width) return;
      width = innerWidth;
      clearTimeout(wait);
      wait = setTimeout(drawAll, 100);
    });
  };

  // === cases

  const filters = at("filters"), search = at("search"), subject = at("subject"), tool = at("tool"), change = at("change");
  const list = at("list"), count = at("count"), more = at("more");
  const blocks = [...document.querySelectorAll("script.block")];
  const inflated = new Map();
  let data = { cases: [], subjects: [], tools: [] };
  let byAnchor = new Map();
  let shown = [], limit = PAGE;

  const block = (number) => {
    if (!inflated.has(number)) inflated.set(number, inflate(blocks[number].textContent).then(JSON.parse));
    return inflated.get(number);
  };
  const traceOf = async (one) => (one.block ? (await block(one.block[0]))[one.block[1]] : null);

  const listed = (one) => [one.case, ...one.slices, ...one.metrics.map((m) => m.name), ...one.effects.flatMap((e) => [e.tool, e.kind]),
    ...one.findings.flatMap((f) => [f.subject, f.detail])];
  const happened = (trace) => [...trace.events.flatMap((e) => [e.text, e.tool, e.arguments, e.result, ...(e.flags ?? [])]),
    ...trace.lanes.flatMap((lane) => lane.trials.flatMap((t) => [t.session, t.answer, ...t.notes]))];
  const words = (parts) => parts.filter(Boolean).join("\n").toLowerCase();
  // What happened is searched too: all blocks are inflated for the first search, and the words kept.
  let searchable;
  const makeSearchable = () => {
    searchable ??= Promise.all(data.cases.map(async (one) => {
      const trace = await traceOf(one);
      one.words = words([...listed(one), ...(trace ? happened(trace) : [])]);
    }));
    return searchable;
  };

  const about = (one, name) => one.metrics.some((m) => m.name === name) || one.findings.some((f) => f.subject === name);
  const effects = (one) => one.metrics.filter((m) => !subject.value || m.name === subject.value).map((m) => m.order);
  const isShown = (one) => {
    const wanted = search.value.trim().toLowerCase();
    if (wanted) {
      one.words ??= words(listed(one));
      if (!wanted.split(/\s+/).every((word) => one.words.includes(word))) return false;
    }
    if (subject.value && !about(one, subject.value)) return false;
    if (tool.value && !one.effects.some((e) => e.tool === tool.value)) return false;
    switch (change.value) {
      case "worse": return effects(one).some((effect) => effect < 0);
      case "better": return effects(one).some((effect) => effect > 0);
      case "findings": return one.findings.length > 0;
      case "effects": return one.effects.length > 0;
      case "diverged": return one.first !== null;
      default: return true;
    }
  };

  const chips = (one) => {
    const row = [];
    const named = new Set(one.metrics.map((m) => m.name));
    const broken = [...new Set(one.findings.map((f) => f.subject))].filter((name) => !named.has(name));
    row.push(...broken.slice(0, 3).map((name) => make("span", "chip bad", `✕ ${name}`)));
    row.push(...one.effects.slice(0, 2).map((e) => make("span", "chip warn", `${e.tool} ${e.kind} ${e.trials}`)));
    const ordered = [...one.metrics].sort((a, b) => (b.name === subject.value) - (a.name === subject.value));
    row.push(...ordered.slice(0, 3).map((m) => {
      const chip = make("span", `chip ${m.tone}`, `${m.tone === "bad" ? "▼" : "▲"} ${m.name} ${m.baseline} → ${m.candidate}`);
      chip.title = m.effect;
      return chip;
    }));
    const left = one.metrics.length + one.effects.length - Math.min(3, one.metrics.length) - Math.min(2, one.effects.length);
    if (left) row.push(make("span", "quiet", `+${left}`));
    return row;
  };

  const titles = { recorded: "Recorded", baseline: "Baseline", candidate: "Candidate" };
  const noteLine = (text) => {
    const line = make("p", "", text);
    line.dir = "auto";
    return line;
  };
  const markOf = (mark, lane, view, choose) => {
    const place = lane.lane === "candidate" ? view.trials.indexOf(mark.trial) : -1;
    const isShown = lane.lane === "candidate" ? place === view.place : lane.trials[0].trial === mark.trial;
    const item = make("li", `${mark.tone}${isShown ? " shown" : ""}`);
    const label = `${mark.trial}: ${mark.word}`;
    if (place >= 0 && view.trials.length > 1) {
      const button = make("button", "", label);
      button.type = "button";
      button.setAttribute("aria-pressed", String(isShown));
      button.title = `Show trial ${mark.trial} of the candidate`;
      button.addEventListener("click", () => choose(place));
      item.append(button);
    } else {
      item.append(label);
      if (isShown) item.append(make("span", "sr", " (shown below)"));
    }
    return item;
  };
  const laneHead = (lane, view, choose) => {
    const box = make("div");
    const trial = lane.trials[lane.lane === "candidate" ? view.place : 0];
    const left = trial.events_left_out ? `, the first ${trial.calls - trial.events_left_out} shown` : "";
    box.append(make("h3", "", titles[lane.lane]));
    const marks = make("ul", "marks");
    marks.setAttribute("aria-label", `Trials of the lane ${lane.lane}`);
    marks.append(...lane.marks.map((mark) => markOf(mark, lane, view, choose)));
    if (lane.marks_left_out) marks.append(make("li", "open", `+${lane.marks_left_out}`));
    const place = make("p", "quiet", `trial ${trial.trial} below, ${trial.calls} tool calls${left}, session `);
    place.append(make("code", "", trial.session));
    box.append(marks, place, ...trial.notes.map(noteLine));
    return box;
  };

  const saidCell = (event) => {
    const text = make("p", "said", event.text);
    text.dir = "auto";
    return [make("span", `who ${event.who}`, event.who), text];
  };
  const calledCell = (event, time) => {
    const parts = [make("span", "tool", event.tool), " ", make("span", `effect ${event.effect}`, event.effect)];
    for (const flag of event.flags) parts.push(" ", make("span", "flag", flag));
    if (time) parts.push(" ", make("span", "quiet time", time));
    const text = make("code", "arguments", event.arguments);
    text.dir = "auto";
    parts.push(text);
    if (event.result !== null) {
      const result = make("details", "result");
      const shown = make("pre", "", event.result);
      shown.tabIndex = 0;
      shown.dir = "auto";
      result.append(make("summary", "", "result"), shown);
      parts.push(result);
    }
    return parts;
  };
  const cellOf = (event, time, lane) => {
    const cell = make("td", `of-${lane}`);
    if (!event) cell.append(make("span", "none", "–"), make("span", "sr", "nothing here"));
    else if (event.who) cell.append(...saidCell(event));
    else cell.append(...calledCell(event, time));
    return cell;
  };

  const STEPS = { same: "", arguments: "other arguments", missing: "not called", extra: "additional call" };
  const traceTable = (trace, place) => {
    const view = trace.views[place];
    const trials = trace.lanes.map((lane) => lane.trials[lane.lane === "candidate" ? place : 0]);
    const table = make("table", "trace");
    const head = make("tr");
    head.append(make("th", "nr", "#"), ...trace.lanes.map((lane, at) => make("th", "", `${titles[lane.lane]}, trial ${trials[at].trial}`)));
    for (const cell of head.children) cell.scope = "col";
    const body = make("tbody");
    view.lines.forEach(([step, places], number) => {
      const row = make("tr", step === "same" ? "" : number === view.first ? "differs first" : "differs");
      const label = make("th", "nr", String(number + 1));
      label.scope = "row";
      row.append(label);
      trace.lanes.forEach((lane, at) => {
        const [event, time] = places[at] === null ? [null, ""] : trials[at].events[places[at]];
        const cell = cellOf(event === null ? null : trace.events[event], time, lane.lane);
        if (at === trace.lanes.length - 1 && step !== "same") {
          cell.prepend(make("span", "mark", (number === view.first ? "First difference: " : "") + STEPS[step]));
        }
        row.append(cell);
      });
      body.append(row);
    });
    const top = make("thead");
    top.append(head);
    table.append(make("caption", "sr", "What happened, side by side"), top, body);
    return table;
  };

  const answersOf = (trace, place) => {
    const answers = make("div", "answers");
    for (const lane of trace.lanes) {
      const answer = lane.trials[lane.lane === "candidate" ? place : 0].answer;
      const column = make("div");
      const text = make("blockquote", "", answer || "no answer");
      text.dir = "auto";
      text.tabIndex = 0;
      column.append(make("h3", "", `${titles[lane.lane]}: last answer`), text);
      answers.append(column);
    }
    return answers;
  };
  const fillTrace = (trace, box, place) => {
    const view = { place, trials: trace.views.map((view) => view.trial) };
    const choose = (place) => {
      fillTrace(trace, box, place);
      box.querySelector("[aria-pressed=true]")?.focus();
    };
    const lanes = make("div", "lanes");
    lanes.append(...trace.lanes.map((lane) => laneHead(lane, view, choose)));
    const parts = [lanes];
    const { lines, first, compared } = trace.views[place];
    if (lines.length) {
      if (compared && first === null) parts.push(make("p", "", "The tool calls of these trials do not differ."));
      if (first !== null) {
        const jump = make("button", "jump", `Go to the first difference (line ${first + 1})`);
        jump.type = "button";
        jump.addEventListener("click", () => {
          const row = box.querySelector("tr.first");
          row.tabIndex = -1;
          row.scrollIntoView({ block: "center" });
          row.focus({ preventScroll: true });
        });
        parts.push(jump);
      }
      parts.push(traceTable(trace, place));
    } else {
      parts.push(make("p", "quiet", "No tool call of these trials is stored."));
    }
    if (trace.lanes.some((lane) => lane.trials[lane.lane === "candidate" ? place : 0].answer)) parts.push(answersOf(trace, place));
    box.replaceChildren(...parts);
  };

  const fill = async (one, box) => {
    if (box.querySelector(".body")) return;
    const body = make("div", "body");
    box.append(body);
    if (one.findings.length) {
      const items = make("ul");
      for (const finding of one.findings) {
        const item = make("li");
        const text = make("span", "", finding.detail);
        text.dir = "auto";
        item.append(make("span", "tag", finding.subject), " ", text);
        items.append(item);
      }
      body.append(items);
    }
    if (one.effects.length) {
      body.append(make("p", "", `Writes that differ more often than the baseline's: ${one.effects.map((e) => `${e.tool} ${e.kind} in ${e.trials} trials`).join(", ")}.`));
    }
    if (one.metrics.length > 3) {
      body.append(make("p", "fine", one.metrics.map((m) => `${m.name} ${m.baseline} → ${m.candidate} (${m.effect})`).join(" · ")));
    }
    if (one.slices.length) body.append(make("p", "fine", `Slices: ${one.slices.join(", ")}`));
    const place = make("div");
    body.append(place);
    const link = make("a", "", "Link to this case");
    link.href = `#${one.anchor}`;
    const foot = make("p", "fine");
    foot.append(link);
    body.append(foot);
    const trace = await traceOf(one);
    if (trace) fillTrace(trace, place, 0);
    else place.append(make("p", "quiet", "What happened in the trials of this case is not in the page."));
  };

  const boxOf = (one) => {
    const box = make("details", "case");
    box.id = one.anchor;
    const summary = make("summary");
    const name = make("span", "id", "case ");
    name.append(make("bdi", "", one.case));
    summary.append(name);
    if (one.tally) summary.append(make("span", "tally", `${one.tally[0]} → ${one.tally[1]} good`));
    summary.append(...chips(one));
    if (one.first !== null) summary.append(make("span", "quiet from", `calls differ from line ${one.first + 1}`));
    box.append(summary);
    box.addEventListener("toggle", () => { if (box.open) fill(one, box); });
    return box;
  };

  const draw = () => {
    list.replaceChildren(...shown.slice(0, limit).map(boxOf));
    const visible = Math.min(limit, shown.length);
    count.textContent = `Showing ${visible} of ${shown.length} matching cases, ${data.cases.length} listed.`;
    more.hidden = visible === shown.length;
    more.textContent = `Show ${Math.min(PAGE, shown.length - visible)} more`;
  };
  const filter = () => {
    shown = data.cases.filter(isShown);
    if (subject.value) {
      const order = (one) => Math.min(...one.metrics.filter((m) => m.name === subject.value).map((m) => m.order), 1);
      shown.sort((a, b) => order(a) - order(b));
    }
    limit = PAGE;
    draw();
  };
  const refilter = async () => {
    filter();
    if (search.value.trim() && !searchable) {
      count.textContent += " Looking into what happened…";
      await makeSearchable();
      filter();
    }
  };

  const openCase = async (one) => {
    if (!shown.includes(one)) { filters.reset(); filter(); }
    const place = shown.indexOf(one);
    if (place >= limit) { limit = Math.ceil((place + 1) / PAGE) * PAGE; draw(); }
    const box = at(one.anchor);
    box.open = true;
    await fill(one, box);
    box.scrollIntoView();
    box.querySelector("summary").focus({ preventScroll: true });
  };
  // A link names a case (#case-…) or a filter (#q=…&subject=…&tool=…&show=…).
  const follow = async () => {
    const place = location.hash.slice(1);
    const one = byAnchor.get(place);
    if (one) return openCase(one);
    if (!place.includes("=")) return undefined;
    const wanted = new URLSearchParams(place);
    search.value = wanted.get("q") ?? "";
    for (const [field, name] of [[subject, "subject"], [tool, "tool"], [change, "show"]]) {
      field.value = wanted.get(name) ?? "";
      if (field.selectedIndex < 0) field.value = "";
    }
    await refilter();
    at("cases").scrollIntoView();
    return undefined;
  };
  const keepInLink = () => {
    const wanted = new URLSearchParams();
    for (const [name, field] of [["q", search], ["subject", subject], ["tool", tool], ["show", change]]) {
      if (field.value.trim()) wanted.set(name, field.value.trim());
    }
    history.replaceState(null, "", `#${wanted.size ? wanted : "cases"}`);
  };

  const options = (field, names) => {
    for (const name of names) {
      const option = make("option", "", name);
      option.value = name;
      field.append(option);
    }
  };
  const listCases = async () => {
    data = JSON.parse(await inflate(at("cases-data").textContent));
    byAnchor = new Map(data.cases.map((one) => [one.anchor, one]));
    options(subject, data.subjects);
    options(tool, data.tools);
    filters.hidden = false;
    filters.addEventListener("submit", (event) => event.preventDefault());
    filters.addEventListener("reset", () => setTimeout(() => { keepInLink(); filter(); }));
    filters.addEventListener("input", () => { keepInLink(); refilter(); });
    more.addEventListener("click", () => { limit += PAGE; draw(); });
    addEventListener("hashchange", follow);
    // What is printed is what is open.
    filter();
    await follow();
  };
  addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, select, textarea");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey && !filters.hidden) {
      event.preventDefault();
      search.focus();
    }
  });

  const start = async () => {
    if (!canInflate) {
      count.textContent = "This browser cannot inflate what lies in the page (DecompressionStream): the charts and the cases are not shown.";
      return;
    }
    await Promise.all([loadCharts(), listCases()]);
    document.documentElement.dataset.ready = "true";
  };
  start();
})();
