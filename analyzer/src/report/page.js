"use strict";
// The list of cases: filter, search, open, link. Text of sessions is only ever set as text, never as markup.
(() => {
  const PAGE = 25;
  const at = (id) => document.getElementById(id);
  const make = (tag, name, text) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const data = JSON.parse(at("data").textContent);
  const byAnchor = new Map(data.cases.map((one) => [one.anchor, one]));
  const filters = at("filters"), search = at("search"), subject = at("subject"), change = at("change");
  const list = at("list"), count = at("count"), more = at("more");
  let shown = [], limit = PAGE;

  const words = (one) => {
    if (one.words === undefined) {
      const calls = (one.trace ? one.trace.lines : []).flatMap((line) => line.cells).filter(Boolean);
      one.words = [one.case, ...one.slices, ...one.metrics.map((m) => m.name),
        ...one.findings.flatMap((f) => [f.subject, f.detail]),
        ...calls.flatMap((c) => [c.tool, c.arguments, ...c.flags]),
        ...(one.trace ? one.trace.lanes : []).flatMap((l) => [l.session, l.answer, ...l.notes])].join("\n").toLowerCase();
    }
    return one.words;
  };
  const about = (one, name) => one.metrics.some((m) => m.name === name) || one.findings.some((f) => f.subject === name);
  const effects = (one) => one.metrics.filter((m) => !subject.value || m.name === subject.value).map((m) => m.order);
  const isShown = (one) => {
    const wanted = search.value.trim().toLowerCase();
    if (wanted && !wanted.split(/\s+/).every((word) => words(one).includes(word))) return false;
    if (subject.value && !about(one, subject.value)) return false;
    switch (change.value) {
      case "worse": return effects(one).some((effect) => effect < 0);
      case "better": return effects(one).some((effect) => effect > 0);
      case "findings": return one.findings.length > 0;
      case "diverged": return one.trace !== null && one.trace.first !== null;
      default: return true;
    }
  };

  const chips = (one) => {
    const ordered = [...one.metrics].sort((a, b) => (b.name === subject.value) - (a.name === subject.value));
    const row = ordered.slice(0, 3).map((m) => {
      const chip = make("span", `chip ${m.tone}`, `${m.name} ${m.baseline} → ${m.candidate}`);
      chip.title = m.effect;
      return chip;
    });
    if (ordered.length > 3) row.push(make("span", "quiet", `+${ordered.length - 3}`));
    const named = new Set(one.metrics.map((m) => m.name));
    const broken = [...new Set(one.findings.map((f) => f.subject))].filter((name) => !named.has(name));
    return [...broken.slice(0, 3).map((name) => make("span", "chip bad", name)), ...row];
  };

  const titles = { recorded: "Recorded", baseline: "Baseline", candidate: "Candidate" };
  const laneHead = (lane) => {
    const box = make("div");
    const left = lane.calls_left_out ? `, the first ${lane.calls - lane.calls_left_out} shown` : "";
    box.append(make("h3", "", titles[lane.lane]));
    const marks = make("ul", "marks");
    for (const mark of lane.marks) {
      const item = make("li", mark.trial === lane.trial ? `${mark.tone} shown` : mark.tone, `${mark.trial}: ${mark.word}`);
      if (mark.trial === lane.trial) item.append(make("span", "sr", " (shown below)"));
      marks.append(item);
    }
    if (lane.marks_left_out) marks.append(make("li", "open", `+${lane.marks_left_out}`));
    const place = make("p", "quiet", `trial ${lane.trial} below, ${lane.calls} tool calls${left}, session `);
    place.append(make("code", "", lane.session));
    box.append(marks, place);
    for (const note of lane.notes) {
      const line = make("p", "", note);
      line.dir = "auto";
      box.append(line);
    }
    return box;
  };

  const cellOf = (call, lane) => {
    const cell = make("td", `of-${lane}`);
    if (!call) {
      cell.append(make("span", "none", "–"), make("span", "sr", "no call"));
      return cell;
    }
    cell.append(make("span", "tool", call.tool), " ", make("span", `effect ${call.effect}`, call.effect));
    for (const flag of call.flags) cell.append(" ", make("span", "flag", flag));
    if (call.time) cell.append(" ", make("span", "quiet", call.time));
    const text = make("code", "arguments", call.arguments);
    text.dir = "auto";
    cell.append(text);
    return cell;
  };

  const STEPS = { same: "", arguments: "other arguments", missing: "not called", extra: "additional call" };
  const traceTable = (trace) => {
    const table = make("table", "trace");
    const head = make("tr");
    head.append(make("th", "nr", "#"), ...trace.lanes.map((lane) => make("th", "", `${lane.lane}, trial ${lane.trial}`)));
    for (const cell of head.children) cell.scope = "col";
    const body = make("tbody");
    trace.lines.forEach((line, place) => {
      const row = make("tr", line.step === "same" ? "" : place === trace.first ? "differs first" : "differs");
      const number = make("th", "nr", String(place + 1));
      number.scope = "row";
      row.append(number);
      line.cells.forEach((call, lane) => {
        const cell = cellOf(call, trace.lanes[lane].lane);
        if (lane === trace.lanes.length - 1 && line.step !== "same") {
          cell.prepend(make("span", "mark", (place === trace.first ? "First difference: " : "") + STEPS[line.step]));
        }
        row.append(cell);
      });
      body.append(row);
    });
    const top = make("thead");
    top.append(head);
    table.append(make("caption", "sr", "Tool calls side by side"), top, body);
    return table;
  };

  const fill = (one, box) => {
    const body = make("div", "body");
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
    if (one.metrics.length > 3) {
      body.append(make("p", "fine", one.metrics.map((m) => `${m.name} ${m.baseline} → ${m.candidate} (${m.effect})`).join(" · ")));
    }
    if (one.slices.length) body.append(make("p", "fine", `Slices: ${one.slices.join(", ")}`));
    if (one.trace) {
      const lanes = make("div", "lanes");
      lanes.append(...one.trace.lanes.map(laneHead));
      body.append(lanes);
      if (one.trace.lines.length) {
        if (one.trace.compared && one.trace.first === null) body.append(make("p", "", "The tool calls of these trials do not differ."));
        body.append(traceTable(one.trace));
      } else {
        body.append(make("p", "quiet", "These trials made no tool call."));
      }
      if (one.trace.lanes.some((lane) => lane.answer)) {
        const answers = make("div", "answers");
        for (const lane of one.trace.lanes) {
          const column = make("div");
          const text = make("blockquote", "", lane.answer || "no answer");
          text.dir = "auto";
          text.tabIndex = 0;
          column.append(make("h3", "", `${titles[lane.lane]}: last answer`), text);
          answers.append(column);
        }
        body.append(answers);
      }
    } else {
      body.append(make("p", "quiet", "The tool calls of this case are not in the page."));
    }
    const link = make("a", "", "Link to this case");
    link.href = `#${one.anchor}`;
    const foot = make("p", "fine");
    foot.append(link);
    body.append(foot);
    box.append(body);
  };

  const boxOf = (one) => {
    const box = make("details", "case");
    box.id = one.anchor;
    const summary = make("summary");
    const name = make("span", "id", "case ");
    name.append(make("bdi", "", one.case));
    summary.append(name, ...chips(one));
    if (one.trace && one.trace.first !== null) summary.append(make("span", "quiet", `tool calls differ from line ${one.trace.first + 1}`));
    box.append(summary);
    box.addEventListener("toggle", () => {
      if (box.open && !box.querySelector(".body")) fill(one, box);
    });
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

  const follow = () => {
    const one = byAnchor.get(decodeURIComponent(location.hash.slice(1)));
    if (!one) return;
    if (!shown.includes(one)) { filters.reset(); filter(); }
    const place = shown.indexOf(one);
    if (place >= limit) { limit = Math.ceil((place + 1) / PAGE) * PAGE; draw(); }
    const box = at(one.anchor);
    if (!box.querySelector(".body")) fill(one, box);
    box.open = true;
    box.scrollIntoView();
    box.querySelector("summary").focus({ preventScroll: true });
  };

  for (const name of data.subjects) {
    const option = make("option", "", name);
    option.value = name;
    subject.append(option);
  }
  filters.hidden = false;
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("reset", () => setTimeout(filter));
  filters.addEventListener("input", filter);
  more.addEventListener("click", () => { limit += PAGE; draw(); });
  addEventListener("hashchange", follow);

  const theme = at("theme");
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("foreshadow-theme", root.dataset.theme); } catch { /* storage is switched off */ }
  });

  filter();
  // After the browser's own jump, which would take the focus away again.
  if (document.readyState === "complete") follow(); else addEventListener("load", () => setTimeout(follow));
})();
