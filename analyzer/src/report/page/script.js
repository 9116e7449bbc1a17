"use strict";
// Charts, and the list of cases with filter, search and links. The script sets text of sessions as text only, never as
// markup. The page's content security policy allows no other script.
(() => {
  const CASES_PER_PAGE = 25;
  const byId = (id) => document.getElementById(id);
  const make = (tag, name, text) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const decompress = async (base64) => {
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    return new Response(stream).text();
  };
  const canDecompress = typeof DecompressionStream === "function";

  // === theme

  const theme = byId("theme");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("foreshadow-theme", root.dataset.theme); } catch { /* storage is disabled */ }
  });

  // === charts

  const chartData = JSON.parse(byId("chart-data").textContent);
  const color = (severity) => `var(--${severity})`;
  const SYMBOLS = { good: "circle", bad: "square", warning: "triangle", neutral: "diamond" };
  const chart = (options) => {
    const svg = Plot.plot({ className: "chart", style: { fontSize: "13px", fontFamily: "inherit" }, ...options });
    // The label of the box describes the chart. Labels of its parts would only repeat element names.
    for (const part of svg.querySelectorAll("[aria-label]")) part.removeAttribute("aria-label");
    return svg;
  };

  const intervals = ({ low, high }, rows, width, last) => {
    const narrow = width < 640;
    const y = (row) => row.name;
    const x = { domain: [low, high], axis: null };
    const zone = (x1, x2, fill) => Plot.rect([0], { x1: () => x1, x2: () => x2, fill });
    const stroke = { value: (row) => color(row.severity), scale: null };
    const arrow = (x, rotate) => ({ x, y, symbol: "triangle", rotate, r: 5, fill: stroke, stroke: "var(--paper)" });
    const marked = rows.filter((row) => row.effect !== null);
    // Each severity has its own symbol, for readers who cannot tell the colours apart.
    const dots = (rows, options) => Object.entries(SYMBOLS).map(([severity, symbol]) =>
      Plot.dot(rows.filter((row) => row.severity === severity), { x: "effect", y, r: 6, symbol, strokeWidth: 2.5, stroke, ...options }));
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
        Plot.tickX(rows.filter((row) => !row.clipped_low), { x: "low", y, stroke, strokeWidth: 3, insetTop: 15, insetBottom: 15 }),
        Plot.tickX(rows.filter((row) => !row.clipped_high), { x: "high", y, stroke, strokeWidth: 3, insetTop: 15, insetBottom: 15 }),
        Plot.dot(rows.filter((row) => row.clipped_low), arrow("low", -90)),
        Plot.dot(rows.filter((row) => row.clipped_high), arrow("high", 90)),
        ...dots(marked.filter((row) => row.decides), { fill: stroke }),
        ...dots(marked.filter((row) => !row.decides), { fill: "var(--paper)" }),
        ...aside,
      ],
    });
  };

  const directions = (rows, width) => {
    const narrow = width < 640;
    const parts = rows.flatMap((row) => [["worse", "bad"], ["same", "neutral"], ["better", "good"]].map(([direction, severity]) => ({ name: row.name, direction, severity, count: row[direction] })));
    const total = Math.max(...rows.map((row) => row.worse + row.same + row.better), 1);
    // A part too thin for its number has no label. The text beside the bar has all numbers.
    const label = (row) => (row.count / total > 0.1 ? `${row.count} ${row.direction}` : row.count / total > 0.02 ? `${row.count}` : "");
    return chart({
      width, height: rows.length * 30 + 10, marginLeft: narrow ? 130 : 150, marginRight: narrow ? 8 : 275, marginTop: 4, marginBottom: 4,
      x: { axis: null, domain: [0, total] }, y: { domain: rows.map((row) => row.name), label: null, tickSize: 0, padding: 0.25 },
      marks: [
        Plot.barX(parts, Plot.stackX({ x: "count", y: "name", z: "direction", order: ["worse", "same", "better"], fill: { value: (row) => `var(--${row.severity}-soft)`, scale: null }, stroke: { value: (row) => color(row.severity), scale: null }, insetLeft: 1, insetRight: 1 })),
        Plot.text(parts, Plot.stackX({ x: "count", y: "name", z: "direction", order: ["worse", "same", "better"], text: label, fill: { value: (row) => color(row.severity), scale: null }, fontWeight: 600 })),
        ...(narrow ? [] : [Plot.text(rows, { y: "name", text: (row) => `${row.worse} worse, ${row.same} same, ${row.better} better`, frameAnchor: "right", textAnchor: "start", dx: 12, fill: "var(--quiet)" })]),
      ],
    });
  };

  const driftChart = (points, width) => {
    const [rest, worse] = [points.filter((point) => !point.worse), points.filter((point) => point.worse)];
    const position = { x: "drift", y: "dispersion", title: "case" };
    const drawing = chart({
      width, height: Math.min(420, Math.max(260, width * 0.45)), marginLeft: 64, marginBottom: 44, marginTop: 24, marginRight: 16,
      x: { label: "drift: distance between the builds, less the distance within →", labelAnchor: "center", grid: true, nice: true }, y: { label: "↑ more variety than the baseline", grid: true, nice: true },
      marks: [
        Plot.ruleX([0], { stroke: "var(--quiet)" }), Plot.ruleY([0], { stroke: "var(--quiet)" }),
        Plot.dot(rest, { ...position, r: 3.5, fill: "var(--neutral)", fillOpacity: 0.55, className: "not-worse" }),
        Plot.dot(worse, { ...position, r: 5, symbol: "times", stroke: "var(--bad)", strokeWidth: 2, className: "worse" }),
      ],
    });
    // A click opens the case. For the keyboard there are links in the table of cases.
    for (const [name, part] of [["not-worse", rest], ["worse", worse]]) {
      drawing.querySelectorAll(`.${name} > *`).forEach((mark, index) => mark.addEventListener("click", () => { location.hash = part[index].anchor; }));
    }
    return drawing;
  };

  const describeIntervals = (rows) => rows.map((row) => `${row.name}: effect ${row.effect_text}, interval ${row.interval_text}, margin ${row.margin_text}: ${row.state}`).join(". ");

  const lookHistory = (points, width) => {
    const names = [...new Set(points.map((point) => point.name))];
    const drawings = make("div", "side-by-side");
    const half = width < 760 ? width : Math.floor((width - 16) / 2);
    for (const [test, title] of [["block", "Alpha needed to prove a loss"], ["approve", "Alpha needed to prove the margin kept"]]) {
      const last = names.map((name) => points.filter((point) => point.name === name).at(-1));
      const box = make("div");
      box.append(make("p", "chart-title", title), chart({
        width: half, height: 220, marginLeft: 56, marginRight: 110, marginBottom: 40, marginTop: 12,
        x: { label: "cases →", labelAnchor: "center" },
        y: { type: "log", domain: [1, 1e-4], label: null, tickFormat: (p) => (p < 0.001 ? "0.0001" : String(p)), ticks: [1, 0.1, 0.01, 0.001, 1e-4], grid: true },
        marks: [
          Plot.ruleY([chartData.alpha], { stroke: "var(--bad)", strokeDasharray: "5 3" }),
          Plot.lineY(points, { x: "cases", y: test, z: "name", stroke: "var(--quiet)", strokeWidth: 1.5, curve: "step-after" }),
          Plot.dot(points, { x: "cases", y: test, r: 3.5, fill: { value: (point) => (point[test] <= chartData.alpha ? (test === "block" ? "var(--bad)" : "var(--good)") : "var(--paper)"), scale: null }, stroke: "var(--ink)" }),
          // Of names that would overlap only the first is drawn. The table has all.
          Plot.text(last.filter((one, place) => last.findIndex((other) => Math.abs(Math.log10(other[test]) - Math.log10(one[test])) < 0.3) === place),
            { x: "cases", y: test, text: "name", textAnchor: "start", dx: 8, fill: "var(--ink)" }),
        ],
      }));
      drawings.append(box);
    }
    return [drawings];
  };
  const calibration = (rows, width) => [chart({
    width, height: rows.length * 34 + 60, marginLeft: width < 640 ? 130 : 150, marginRight: 24, marginTop: 12, marginBottom: 40,
    x: { label: "multiples of the margin →", labelAnchor: "center", grid: true, zero: true }, y: { domain: rows.map((row) => row.name), label: null, tickSize: 0, type: "band" },
    marks: [
      Plot.ruleX([1], { stroke: "var(--bad)", strokeDasharray: "5 3" }),
      Plot.ruleY(rows, { y: "name", x1: "detectable", x2: "approvable", stroke: "var(--line)", strokeWidth: 2 }),
      Plot.dot(rows, { x: "detectable", y: "name", symbol: "square", r: 6, fill: "var(--neutral)" }),
      Plot.dot(rows, { x: "approvable", y: "name", symbol: "circle", r: 6, fill: "var(--paper)", stroke: "var(--neutral)", strokeWidth: 2.5 }),
    ],
  })];

  // Charts: element id, data, description for screen readers, drawing function.
  const charts = [
    ["interval-chart", chartData.intervals.rows, describeIntervals,
      (rows, width) => {
        const [deciding, reported] = [rows.filter((row) => row.decides), rows.filter((row) => !row.decides)];
        const drawings = [];
        if (deciding.length) drawings.push(intervals(chartData.intervals, deciding, width, !reported.length));
        if (deciding.length && reported.length) drawings.push(make("p", "chart-title", "Reported only"));
        if (reported.length) drawings.push(intervals(chartData.intervals, reported, width, true));
        return drawings;
      }],
    ["direction-chart", chartData.direction_counts, (rows) => rows.map((row) => `${row.name}: ${row.worse} cases got worse, ${row.same} stayed the same, ${row.better} got better`).join(". "),
      (rows, width) => [directions(rows, width)]],
    ["look-chart", chartData.look_history, (points) => points.map((point) => `${point.name} after ${point.cases} cases: block ${point.block}, approve ${point.approve}`).join(". "), lookHistory],
    ["slice-chart", chartData.slices.rows, describeIntervals, (rows, width) => [intervals(chartData.slices, rows, width, true)]],
    ["calibration-chart", chartData.calibration, (rows) => rows.map((row) => `${row.name}: detectable loss ${row.detectable} margins, approvable margin ${row.approvable} times the margin`).join(". "), calibration],
    ["drift-chart", chartData.answer_drift, (points) => `${points.length} cases by drift of their answers; largest: ${points.slice(0, 3).map((point) => `${point.case} ${point.drift}`).join(", ")}`,
      (points, width) => [driftChart(points, width)]],
  ];

  const drawAll = () => {
    for (const [id, rows, describe, draw] of charts) {
      const figure = byId(id);
      if (!figure || !rows?.length) continue;
      figure.hidden = false;
      let box = figure.querySelector(".drawing");
      if (!box) {
        box = make("div", "drawing");
        box.setAttribute("role", "img");
        box.setAttribute("aria-label", describe(rows));
        figure.insertBefore(box, figure.querySelector("figcaption"));
      }
      const width = Math.round(box.clientWidth);
      if (width > 0) box.replaceChildren(...draw(rows, width));
    }
  };
  const loadCharts = async () => {
    const text = await decompress(byId("charts").textContent);
    const script = make("script");
    // The content security policy requires Trusted Types for scripts, and names this script's digest.
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

  const filters = byId("filters"), search = byId("search"), subject = byId("subject"), tool = byId("tool"), change = byId("change");
  const list = byId("cases-list"), count = byId("count"), more = byId("more");
  const blocks = [...document.querySelectorAll("script.trace-block")];
  const decompressed = new Map();
  let data = { cases: [], subjects: [], tools: [] };
  let byAnchor = new Map();
  let matching = [], limit = CASES_PER_PAGE;

  const block = (number) => {
    if (!decompressed.has(number)) decompressed.set(number, decompress(blocks[number].textContent).then(JSON.parse));
    return decompressed.get(number);
  };
  const tracesOf = async (one) => (one.block ? (await block(one.block[0]))[one.block[1]] : null);

  const listTexts = (one) => [one.case, ...one.slices, ...one.metrics.map((m) => m.name), ...one.write_changes.flatMap((w) => [w.tool, w.change]),
    ...one.findings.flatMap((f) => [f.subject, f.detail])];
  const eventTexts = (event) => (event.message ? [event.message.text]
    : [event.tool_call.tool, event.tool_call.arguments, event.tool_call.result, ...event.tool_call.flags]);
  const traceTexts = (traces) => [...traces.events.flatMap(eventTexts),
    ...traces.lanes.flatMap((lane) => lane.trials.flatMap((t) => [t.session, t.answer, ...t.notes]))];
  const joined = (texts) => texts.filter(Boolean).join("\n").toLowerCase();
  // The first search decompresses all traces, so that it finds their texts too.
  let searchable;
  const makeSearchable = () => {
    searchable ??= Promise.all(data.cases.map(async (one) => {
      const traces = await tracesOf(one);
      one.text = joined([...listTexts(one), ...(traces ? traceTexts(traces) : [])]);
    }));
    return searchable;
  };

  const isAbout = (one, name) => one.metrics.some((m) => m.name === name) || one.findings.some((f) => f.subject === name);
  const effects = (one) => one.metrics.filter((m) => !subject.value || m.name === subject.value).map((m) => m.effect_value);
  const matches = (one) => {
    const wanted = search.value.trim().toLowerCase();
    if (wanted) {
      one.text ??= joined(listTexts(one));
      if (!wanted.split(/\s+/).every((word) => one.text.includes(word))) return false;
    }
    if (subject.value && !isAbout(one, subject.value)) return false;
    if (tool.value && !one.write_changes.some((w) => w.tool === tool.value)) return false;
    switch (change.value) {
      case "worse": return effects(one).some((effect) => effect < 0);
      case "better": return effects(one).some((effect) => effect > 0);
      case "findings": return one.findings.length > 0;
      case "writes": return one.write_changes.length > 0;
      case "calls": return one.first_difference !== null;
      default: return true;
    }
  };

  const INVARIANT_CHIPS = 3, WRITE_CHIPS = 2, METRIC_CHIPS = 3;
  const chips = (one) => {
    const row = [];
    const metricNames = new Set(one.metrics.map((m) => m.name));
    const invariants = [...new Set(one.findings.map((f) => f.subject))].filter((name) => !metricNames.has(name));
    row.push(...invariants.slice(0, INVARIANT_CHIPS).map((name) => make("span", "chip bad", `✕ ${name}`)));
    row.push(...one.write_changes.slice(0, WRITE_CHIPS).map((w) => make("span", "chip warning", `${w.change} write ${w.tool} ${w.trials}`)));
    const ordered = [...one.metrics].sort((a, b) => (b.name === subject.value) - (a.name === subject.value));
    row.push(...ordered.slice(0, METRIC_CHIPS).map((m) => {
      const chip = make("span", `chip ${m.severity}`, `${m.severity === "bad" ? "▼" : "▲"} ${m.name} ${m.baseline} → ${m.candidate}`);
      chip.title = m.effect;
      return chip;
    }));
    const hidden = Math.max(0, one.metrics.length - METRIC_CHIPS) + Math.max(0, one.write_changes.length - WRITE_CHIPS);
    if (hidden) row.push(make("span", "quiet", `+${hidden}`));
    return row;
  };

  const titles = { recorded: "Recording", baseline: "Baseline", candidate: "Candidate" };
  const trialOf = (lane, index) => lane.trials[lane.lane === "candidate" ? index : 0];
  const paragraph = (text) => {
    const line = make("p", "", text);
    line.dir = "auto";
    return line;
  };
  const endingOf = (ending, lane, view, choose) => {
    const index = lane.lane === "candidate" ? view.trials.indexOf(ending.trial) : -1;
    const isShown = lane.lane === "candidate" ? index === view.index : lane.trials[0].trial === ending.trial;
    const item = make("li", `${ending.severity}${isShown ? " shown" : ""}`);
    const label = `${ending.trial}: ${ending.label}`;
    if (index >= 0 && view.trials.length > 1) {
      const button = make("button", "", label);
      button.type = "button";
      button.setAttribute("aria-pressed", String(isShown));
      button.title = `Show trial ${ending.trial} of the candidate`;
      button.addEventListener("click", () => choose(index));
      item.append(button);
    } else {
      item.append(label);
      if (isShown) item.append(make("span", "sr", " (shown below)"));
    }
    return item;
  };
  const laneHead = (lane, view, choose) => {
    const box = make("div");
    const trial = trialOf(lane, view.index);
    const leftOut = trial.calls_left_out ? `, the first ${trial.calls - trial.calls_left_out} shown` : "";
    box.append(make("h3", "", titles[lane.lane]));
    const endings = make("ul", "endings");
    endings.setAttribute("aria-label", `Trials of the lane ${lane.lane}`);
    endings.append(...lane.endings.map((ending) => endingOf(ending, lane, view, choose)));
    if (lane.endings_left_out) endings.append(make("li", "neutral", `+${lane.endings_left_out}`));
    const shown = make("p", "quiet", `trial ${trial.trial} below, ${trial.calls} tool calls${leftOut}, session `);
    shown.append(make("code", "", trial.session));
    box.append(endings, shown, ...trial.notes.map(paragraph));
    return box;
  };

  const messageParts = (message) => {
    const text = make("p", "message", message.text);
    text.dir = "auto";
    return [make("span", `from ${message.from}`, message.from), text];
  };
  const toolCallParts = (call, duration) => {
    const parts = [make("span", "tool", call.tool), " ", make("span", `effect ${call.effect}`, call.effect)];
    for (const flag of call.flags) parts.push(" ", make("span", "flag", flag));
    if (duration) parts.push(" ", make("span", "quiet duration", duration));
    const text = make("code", "arguments", call.arguments);
    text.dir = "auto";
    parts.push(text);
    if (call.result !== null) {
      const result = make("details", "result");
      const content = make("pre", "", call.result);
      content.tabIndex = 0;
      content.dir = "auto";
      result.append(make("summary", "", "result"), content);
      parts.push(result);
    }
    return parts;
  };
  const cellOf = (event, duration, lane) => {
    const cell = make("td", `of-${lane}`);
    if (!event) cell.append(make("span", "none", "–"), make("span", "sr", "no event"));
    else if (event.message) cell.append(...messageParts(event.message));
    else cell.append(...toolCallParts(event.tool_call, duration));
    return cell;
  };

  const DIFFERENCES = { same: "", arguments: "other arguments", missing: "missing call", extra: "extra call" };
  const traceTable = (traces, index) => {
    const comparison = traces.comparisons[index];
    const trials = traces.lanes.map((lane) => trialOf(lane, index));
    const table = make("table", "trace");
    const head = make("tr");
    head.append(make("th", "row-number", "#"), ...traces.lanes.map((lane, at) => make("th", "", `${titles[lane.lane]}, trial ${trials[at].trial}`)));
    for (const cell of head.children) cell.scope = "col";
    const body = make("tbody");
    comparison.rows.forEach(([difference, indexes], number) => {
      const isFirst = number === comparison.first_difference;
      const row = make("tr", difference === "same" ? "" : isFirst ? "differs first-differing" : "differs");
      const label = make("th", "row-number", String(number + 1));
      label.scope = "row";
      row.append(label);
      traces.lanes.forEach((lane, at) => {
        const [event, duration] = indexes[at] === null ? [null, ""] : trials[at].events[indexes[at]];
        const cell = cellOf(event === null ? null : traces.events[event], duration, lane.lane);
        if (at === traces.lanes.length - 1 && difference !== "same") {
          cell.prepend(make("span", "difference", (isFirst ? "First difference: " : "") + DIFFERENCES[difference]));
        }
        row.append(cell);
      });
      body.append(row);
    });
    const top = make("thead");
    top.append(head);
    table.append(make("caption", "sr", "Messages and tool calls, side by side"), top, body);
    return table;
  };

  const lastAnswers = (traces, index) => {
    const answers = make("div", "last-answers");
    for (const lane of traces.lanes) {
      const column = make("div");
      const text = make("blockquote", "", trialOf(lane, index).answer || "no answer");
      text.dir = "auto";
      text.tabIndex = 0;
      column.append(make("h3", "", `${titles[lane.lane]}: last answer`), text);
      answers.append(column);
    }
    return answers;
  };
  const fillTraces = (traces, box, index) => {
    const view = { index, trials: traces.comparisons.map((comparison) => comparison.trial) };
    const choose = (other) => {
      fillTraces(traces, box, other);
      box.querySelector("[aria-pressed=true]")?.focus();
    };
    const lanes = make("div", "lanes");
    lanes.append(...traces.lanes.map((lane) => laneHead(lane, view, choose)));
    const parts = [lanes];
    const { rows, first_difference: first, is_compared: isCompared } = traces.comparisons[index];
    if (rows.length) {
      if (isCompared && first === null) parts.push(make("p", "", "The tool calls of these trials are the same."));
      if (first !== null) {
        const jump = make("button", "first-difference", `Go to the first difference (row ${first + 1})`);
        jump.type = "button";
        jump.addEventListener("click", () => {
          const row = box.querySelector("tr.first-differing");
          row.tabIndex = -1;
          row.scrollIntoView({ block: "center" });
          row.focus({ preventScroll: true });
        });
        parts.push(jump);
      }
      parts.push(traceTable(traces, index));
    } else {
      parts.push(make("p", "quiet", "These trials have no stored tool calls."));
    }
    if (traces.lanes.some((lane) => trialOf(lane, index).answer)) parts.push(lastAnswers(traces, index));
    box.replaceChildren(...parts);
  };

  const fillCase = async (one, box) => {
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
    if (one.write_changes.length) {
      body.append(make("p", "", `More often than in the baseline: ${one.write_changes.map((w) => `${w.change} write ${w.tool} in ${w.trials} trials`).join(", ")}.`));
    }
    if (one.metrics.length > METRIC_CHIPS) {
      body.append(make("p", "fine", one.metrics.map((m) => `${m.name} ${m.baseline} → ${m.candidate} (${m.effect})`).join(" · ")));
    }
    if (one.slices.length) body.append(make("p", "fine", `Slices: ${one.slices.join(", ")}`));
    const traceBox = make("div");
    body.append(traceBox);
    const link = make("a", "", "Link to this case");
    link.href = `#${one.anchor}`;
    const foot = make("p", "fine");
    foot.append(link);
    body.append(foot);
    const traces = await tracesOf(one);
    if (traces) fillTraces(traces, traceBox, 0);
    else traceBox.append(make("p", "quiet", "The traces of this case are not in the page."));
  };

  const boxOf = (one) => {
    const box = make("details", "case");
    box.id = one.anchor;
    const summary = make("summary");
    const name = make("span", "id", "case ");
    name.append(make("bdi", "", one.case));
    summary.append(name);
    if (one.successes) summary.append(make("span", "successes", `success ${one.successes[0]} → ${one.successes[1]}`));
    summary.append(...chips(one));
    if (one.first_difference !== null) summary.append(make("span", "quiet first-row", `calls differ from row ${one.first_difference + 1}`));
    box.append(summary);
    box.addEventListener("toggle", () => { if (box.open) fillCase(one, box); });
    return box;
  };

  const drawList = () => {
    list.replaceChildren(...matching.slice(0, limit).map(boxOf));
    const visible = Math.min(limit, matching.length);
    count.textContent = `Showing ${visible} of ${matching.length} matching cases, ${data.cases.length} listed.`;
    more.hidden = visible === matching.length;
    more.textContent = `Show ${Math.min(CASES_PER_PAGE, matching.length - visible)} more`;
  };
  const filter = () => {
    matching = data.cases.filter(matches);
    if (subject.value) {
      const order = (one) => Math.min(...one.metrics.filter((m) => m.name === subject.value).map((m) => m.effect_value), 1);
      matching.sort((a, b) => order(a) - order(b));
    }
    limit = CASES_PER_PAGE;
    drawList();
  };
  const refilter = async () => {
    filter();
    if (search.value.trim() && !searchable) {
      count.textContent += " Searching the traces…";
      await makeSearchable();
      filter();
    }
  };

  const openCase = async (one) => {
    if (!matching.includes(one)) { filters.reset(); filter(); }
    const index = matching.indexOf(one);
    if (index >= limit) { limit = Math.ceil((index + 1) / CASES_PER_PAGE) * CASES_PER_PAGE; drawList(); }
    const box = byId(one.anchor);
    box.open = true;
    await fillCase(one, box);
    box.scrollIntoView();
    box.querySelector("summary").focus({ preventScroll: true });
  };
  // The fragment of the address names a case (#case-…) or a filter (#q=…&subject=…&tool=…&show=…).
  const followFragment = async () => {
    const fragment = location.hash.slice(1);
    const one = byAnchor.get(fragment);
    if (one) return openCase(one);
    if (!fragment.includes("=")) return undefined;
    const query = new URLSearchParams(fragment);
    search.value = query.get("q") ?? "";
    for (const [field, name] of [[subject, "subject"], [tool, "tool"], [change, "show"]]) {
      field.value = query.get(name) ?? "";
      if (field.selectedIndex < 0) field.value = "";
    }
    await refilter();
    byId("cases").scrollIntoView();
    return undefined;
  };
  const updateFragment = () => {
    const query = new URLSearchParams();
    for (const [name, field] of [["q", search], ["subject", subject], ["tool", tool], ["show", change]]) {
      if (field.value.trim()) query.set(name, field.value.trim());
    }
    history.replaceState(null, "", `#${query.size ? query : "cases"}`);
  };

  const addOptions = (field, names) => {
    for (const name of names) {
      const option = make("option", "", name);
      option.value = name;
      field.append(option);
    }
  };
  const loadCases = async () => {
    data = JSON.parse(await decompress(byId("case-list").textContent));
    byAnchor = new Map(data.cases.map((one) => [one.anchor, one]));
    addOptions(subject, data.subjects);
    addOptions(tool, data.tools);
    filters.hidden = false;
    filters.addEventListener("submit", (event) => event.preventDefault());
    filters.addEventListener("reset", () => setTimeout(() => { updateFragment(); filter(); }));
    filters.addEventListener("input", () => { updateFragment(); refilter(); });
    more.addEventListener("click", () => { limit += CASES_PER_PAGE; drawList(); });
    addEventListener("hashchange", followFragment);
    filter();
    await followFragment();
  };
  addEventListener("keydown", (event) => {
    const isTyping = event.target.closest?.("input, select, textarea");
    if (event.key === "/" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey && !filters.hidden) {
      event.preventDefault();
      search.focus();
    }
  });

  const start = async () => {
    if (!canDecompress) {
      count.textContent = "This browser has no DecompressionStream, so the charts and the list of cases are not shown.";
      return;
    }
    await Promise.all([loadCharts(), loadCases()]);
    document.documentElement.dataset.ready = "true";
  };
  start();
})();
