// The live page: asks for what is, twice a second while it is looked at, and draws it. It never writes, and what comes
// from outside is only ever text.
"use strict";

const PAUSE = 500;
const HISTORY = 120;
const STUCK = 5;
const OLD = 1;
const BOUNDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];
const KINDS = [
  ["static", "Static files"], ["cgi", "CGI programs"], ["app", null], ["upstream", null],
  ["redirect", "Redirects"], ["respond", "Fixed answers"], ["", "No route"],
];
const token = new URLSearchParams(location.search).get("token");
const past = [];
const stacks = new Map();
let before = null;
let now = null;
let paused = false;

const byId = (id) => document.getElementById(id);

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") made.className = value;
    else if (value !== undefined && value !== null) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function ask(path) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  return fetch(path, { headers, cache: "no-store", signal: AbortSignal.timeout(5000) });
}

// === words ===

function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 0.001) return `${Math.round(value * 1e6)} µs`;
  if (value < 1) return `${(value * 1000).toPrecision(value < 0.01 ? 2 : 3)} ms`;
  if (value < 100) return `${value.toFixed(1)} s`;
  if (value < 7200) return `${Math.round(value / 60)} min`;
  return `${Math.round(value / 3600)} h`;
}

function rate(value) {
  if (value === 0) return "0/s";
  return value < 10 ? `${value.toFixed(1)}/s` : `${Math.round(value)}/s`;
}

function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let at = 0;
  while (value >= 1024 && at < 3) { value /= 1024; at += 1; }
  return `${at ? value.toFixed(value < 10 ? 1 : 0) : Math.round(value)} ${units[at]}`;
}

const clock = (at) => new Date(at * 1000).toLocaleTimeString([], { hour12: false });
const sum = (list, of) => list.reduce((total, each) => total + of(each), 0);

// What lies below this share of the buckets: the upper bound of the one that it falls into.
function quantile(buckets, share) {
  const all = sum(buckets, (count) => count);
  if (!all) return null;
  let seen = 0;
  for (let at = 0; at < buckets.length; at += 1) {
    seen += buckets[at];
    if (seen >= all * share) return BOUNDS[Math.min(at, BOUNDS.length - 1)];
  }
  return null;
}

// === what was counted between two looks ===

const keyOf = (route) => JSON.stringify([route.route, route.app]);

function flows() {
  const old = new Map((before ? before.routes : []).map((route) => [keyOf(route), route]));
  const span = before ? Math.max(now.now - before.now, 0.001) : 1;
  return now.routes.map((route) => {
    const was = before ? old.get(keyOf(route)) : route;
    const past = (of) => (was ? of(was) : 0);
    const all = sum(route.statuses, (count) => count);
    const fresh = Math.max(all - past((other) => sum(other.statuses, (count) => count)), 0);
    const failed = Math.max(route.statuses[5] - past((other) => other.statuses[5]), 0);
    const spent = Math.max(route.seconds - past((other) => other.seconds), 0);
    return { ...route, all, rate: fresh / span, failing: failed / span, fresh, spent,
      out: Math.max(route.sent - past((other) => other.sent), 0) / span };
  });
}

function together(list) {
  const fresh = sum(list, (flow) => flow.fresh);
  return { rate: sum(list, (flow) => flow.rate), failing: sum(list, (flow) => flow.failing),
    out: sum(list, (flow) => flow.out), failed: sum(list, (flow) => flow.statuses[5]),
    latency: fresh ? sum(list, (flow) => flow.spent) / fresh : null };
}

// === the picture ===

function figures(pairs) {
  const list = element("dl");
  for (const [word, value, kind] of pairs) {
    list.append(element("div", {}, element("dt", {}, word), element("dd", { class: kind || "" }, String(value))));
  }
  return list;
}

function box(title, pairs, flow, ...more) {
  const made = element("div", { class: flow && flow.failing ? "box hurt" : "box" }, element("h3", {}, title), figures(pairs), ...more);
  made.flow = flow;
  return made;
}

function usual(flow) {
  return [["", rate(flow.rate)], ["mean", seconds(flow.latency)],
    ["errors", rate(flow.failing), flow.failing ? "bad" : ""]];
}

function worker(app, each) {
  const here = now.flights.filter((flight) => flight.app === app && flight.worker && flight.worker[0] === each.serial);
  const oldest = Math.max(0, ...here.map((flight) => flight.there || 0));
  const kind = each.leaving || !each.connected ? "down" : here.length === 0 ? "on" : oldest > STUCK ? "stuck" : "busy";
  const word = each.leaving ? "leaving" : !each.connected ? "starting" : here.length === 0 ? "idle" : `${here.length} busy`;
  const memory = each.memory === null ? "" : ` · ${bytes(each.memory)}`;
  const title = `worker ${each.serial}, pid ${each.pid}, for ${seconds(each.age)}`;
  return element("li", { class: kind, title }, `#${each.serial} ${word}${oldest > OLD ? ` ${seconds(oldest)}` : ""}${memory}`);
}

function application(name, app, flow) {
  const restarts = Object.entries(app.restarts);
  const pairs = [...usual(flow), ["busy", `${app.busy} of ${app.busy + app.idle}`, app.idle === 0 ? "busy" : ""],
    ["queued", app.queued, app.queued ? "busy" : ""]];
  for (const [cause, count] of restarts) pairs.push([cause, count, cause === "recycled" ? "" : "bad"]);
  if (app.replays) pairs.push(["sent again", app.replays, "busy"]);
  const made = box(`${name} · ${app.state}`, pairs, flow, element("ul", { class: "workers" }, ...app.workers.map((each) => worker(name, each))));
  if (app.state === "failed") made.classList.add("hurt");
  return made;
}

function upstream(name, servers, flow) {
  const list = servers.map((server) => element("li", { class: server.state === "up" ? (server.active ? "busy" : "on") : "down",
    title: `${server.requests} requests, ${server.failures} failed` }, `${server.url} ${server.state}${server.active ? ` · ${server.active}` : ""}`));
  return box(`upstream ${name}`, usual(flow), flow, element("ul", { class: "workers" }, ...list));
}

function spark() {
  const most = Math.max(1, ...past);
  const points = past.map((value, at) => `${at},${30 - (28 * value) / most}`).join(" ");
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.id = "spark";
  svg.setAttribute("viewBox", `0 0 ${HISTORY - 1} 32`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `requests per second in the last minute, at most ${Math.round(most)}`);
  const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
  line.setAttribute("points", points);
  svg.append(line);
  return svg;
}

function picture(all) {
  const { status } = now;
  const total = together(all);
  const traffic = status.traffic || { connections: 0, accepted: 0 };
  byId("clients").replaceChildren(box("Clients", [["connections", traffic.connections], ["in flight", now.flights.length],
    ["out", `${bytes(total.out)}/s`]], total));
  const front = status.front;
  byId("server").replaceChildren(box("Web server", [...usual(total), ["pid", front.pid],
    ...(front.restarts ? [["restarts", front.restarts, "bad"]] : [])], total, spark()));
  const boxes = [];
  const upstreams = Object.entries(status.upstreams || {});
  const proxied = all.filter((flow) => flow.handler === "upstream");
  for (const [kind, title] of KINDS) {
    const of = all.filter((flow) => flow.handler === kind);
    if (kind === "app") {
      for (const [name, app] of Object.entries(status.apps)) {
        boxes.push(application(name, app, together(of.filter((flow) => flow.app === name))));
      }
    } else if (kind === "upstream") {
      upstreams.forEach(([name, servers], at) => boxes.push(upstream(name, servers, together(upstreams.length === 1 ? proxied : at ? [] : proxied))));
    } else if (of.length) {
      const flow = together(of);
      const here = now.flights.filter((flight) => flight.handler === kind).length;
      boxes.push(box(title, [...usual(flow), ...(here ? [["in flight", here, "busy"]] : [])], flow));
    }
  }
  byId("handlers").replaceChildren(...boxes);
  wires();
}

// One line from each box to what it leads to: its width tells how much, its colour whether it fails.
function wires() {
  const picture = byId("picture").getBoundingClientRect();
  const [clients, server] = ["clients", "server"].map((id) => byId(id).firstElementChild);
  const place = (box) => {
    const { left, right, top, bottom } = box.getBoundingClientRect();
    return { left: left - picture.left, right: right - picture.left, top: top - picture.top, bottom: bottom - picture.top,
      middle: (top + bottom) / 2 - picture.top, centre: (left + right) / 2 - picture.left };
  };
  const stacked = place(server).top > place(clients).bottom;
  const paths = [];
  const wire = (from, to, flow, rail) => {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    const [a, b] = [place(from), place(to)];
    const bend = (a.right + b.left) / 2;
    path.setAttribute("d", rail ? `M${a.left + 12},${a.bottom} V${b.middle} H${b.left}`
      : stacked ? `M${a.left + 12},${a.bottom} V${b.top}`
        : `M${a.right},${a.middle} C${bend},${a.middle} ${bend},${b.middle} ${b.left},${b.middle}`);
    path.setAttribute("stroke-width", Math.min(1.5 + Math.log10(1 + flow.rate) * 1.8, 8).toFixed(1));
    path.setAttribute("class", `${flow.rate ? "flows" : ""} ${flow.failing ? "fails" : ""}`);
    paths.push(path);
  };
  wire(clients, server, server.flow, false);
  for (const each of byId("handlers").children) wire(server, each, each.flow, stacked);
  const svg = byId("wires");
  const same = svg.children.length === paths.length;
  // What is the same stays, so that the movement does not begin anew with every look.
  if (same) paths.forEach((path, at) => ["d", "stroke-width", "class"].forEach((name) => {
    if (svg.children[at].getAttribute(name) !== path.getAttribute(name)) svg.children[at].setAttribute(name, path.getAttribute(name));
  }));
  else svg.replaceChildren(...paths);
}

// === tables ===

const none = (width, text) => element("tr", {}, element("td", { class: "none", colspan: width }, text));
const asked = (one) => `${one.method} ${one.host && one.target !== null ? one.host : ""}${one.target === null ? `${one.route || "?"} (URL hidden)` : one.target}`;

function where(flight) {
  const tier = flight.handler === "app" || flight.app ? flight.app : flight.handler || "router";
  const place = flight.worker ? ` worker ${flight.worker[0]}, thread ${flight.worker[1]}` : "";
  return `${tier}: ${flight.state}${place}${flight.there ? ` for ${seconds(flight.there)}` : ""}`;
}

async function toggle(flight) {
  if (stacks.has(flight.id)) {
    stacks.delete(flight.id);
  } else {
    stacks.set(flight.id, "asking…");
    draw();
    try {
      stacks.set(flight.id, await (await ask(`api/stack?id=${encodeURIComponent(flight.id)}`)).text());
    } catch (error) {
      stacks.set(flight.id, `not told: ${error.message}`);
    }
  }
  draw();
}

const rows = new Map();

function inFlight() {
  const body = byId("flights");
  byId("flights-count").textContent = now.flights.length || "";
  const keep = new Set();
  const wanted = [];
  for (const flight of now.flights.slice(0, 200)) {
    const key = `${flight.id}-${flight.state === "left behind"}`;
    if (flight.id) keep.add(key);
    let row = flight.id && rows.get(key);
    if (!row) {
      row = element("tr", {}, element("td"), element("td", { class: "url" }), element("td"), element("td"));
      if (flight.id) rows.set(key, row);
      if (flight.id && flight.app) {
        const button = element("button", { type: "button", "aria-expanded": "false" }, "Stack");
        button.addEventListener("click", () => toggle(flight));
        row.cells[3].append(button);
      }
    }
    const stuck = flight.state === "left behind" || flight.age > STUCK;
    row.cells[0].className = stuck ? "stuck" : flight.age > OLD ? "old" : "";
    row.cells[0].textContent = seconds(flight.age);
    row.cells[1].textContent = asked(flight) + (flight.client ? ` — ${flight.client}` : "");
    row.cells[2].textContent = where(flight);
    wanted.push(row);
    const button = row.cells[3].firstElementChild;
    if (button) {
      button.setAttribute("aria-expanded", String(stacks.has(flight.id)));
      button.disabled = !flight.worker && !stacks.has(flight.id);
    }
    if (flight.id && stacks.has(flight.id)) {
      const text = stacks.get(flight.id);
      row.stack ||= element("tr", { class: "stack" }, element("td", { colspan: 4 }, element("pre")));
      row.stack.querySelector("pre").textContent = text;
      wanted.push(row.stack);
    }
  }
  for (const key of rows.keys()) if (!keep.has(key)) rows.delete(key);
  if (!wanted.length) wanted.push(none(4, "nothing"));
  // Only what has changed is moved, so that whoever has a button under the finger keeps it.
  if (wanted.length !== body.children.length || wanted.some((row, at) => body.children[at] !== row)) {
    const focused = document.activeElement;
    body.replaceChildren(...wanted);
    if (focused && focused.isConnected) focused.focus({ preventScroll: true });
  }
}

function waterfall(one) {
  const queue = one.queue || 0;
  const application = one.application || 0;
  const answered = one.answered === null ? one.duration : one.answered;
  const reading = Math.max(answered - queue - application, 0);
  const parts = [["reading", reading], ["queue", queue], ["application", application], ["sending", Math.max(one.duration - answered, 0)]];
  const words = parts.filter(([, time]) => time > 0).map(([name, time]) => `${name} ${seconds(time)}`).join(", ");
  const bar = element("div", { class: "waterfall", role: "img", "aria-label": words, title: words });
  for (const [name, time] of parts) {
    if (time <= 0) continue;
    const part = element("span", { class: `bar ${name}` });
    part.style.width = `${(100 * time) / (one.duration || 1)}%`;
    bar.append(part);
  }
  return element("td", {}, `${seconds(one.duration)} `, element("span", { class: "soft" }, words), bar,
    one.told ? element("span", { class: "soft" }, `Server-Timing: ${one.told}`) : null);
}

function finished(id, list, empty) {
  const key = JSON.stringify(list.map((one) => [one.at, one.id]));
  const body = byId(id);
  if (body.dataset.key === key) return;
  body.dataset.key = key;
  body.replaceChildren(...(list.length ? list.slice(0, 20).map((one) => element("tr", {}, element("td", {}, clock(one.at)),
    element("td", { class: one.status >= 500 ? "s5" : "" }, String(one.status)),
    element("td", { class: "url" }, asked(one), one.id ? element("div", { class: "soft" }, `reference ${one.id}`) : null),
    waterfall(one))) : [none(4, empty)]));
}

function deaths(list) {
  const body = byId("deaths");
  const key = JSON.stringify(list.map((death) => [death.at, death.pid]));
  if (body.dataset.key === key) return;
  body.dataset.key = key;
  body.replaceChildren(...(list.length ? [...list].reverse().map((death) => element("li", {}, element("strong", {}, `${clock(death.at)} `),
    death.text || `${death.app}: worker ${death.serial} (pid ${death.pid}) ${death.how}`)) : [element("li", { class: "none" }, "none")]));
}

function routes(all) {
  const number = (text) => element("td", { class: "number" }, String(text));
  byId("routes").replaceChildren(...all.map((flow) => element("tr", {}, element("td", { class: "url" }, flow.route || "(none)"),
    element("td", {}, flow.app ? `app ${flow.app}` : flow.handler || "–"), number(rate(flow.rate)),
    number(seconds(quantile(flow.buckets, 0.5))), number(seconds(quantile(flow.buckets, 0.95))),
    number(flow.all), number(flow.statuses[4]), element("td", { class: flow.statuses[5] ? "number s5" : "number" }, String(flow.statuses[5])))));
}

// === drawing ===

function draw() {
  if (!now) return;
  const { status } = now;
  const all = flows();
  byId("who").textContent = `${status.version} · ${status.target} · pid ${status.pid} · for ${seconds(status.uptime)}`;
  document.title = `daemun · ${status.degraded.length ? "degraded" : status.phase}`;
  byId("phase").textContent = status.phase;
  byId("phase").className = status.phase === "serving" ? "" : "off";
  byId("closed").hidden = now.open;
  const list = byId("degraded");
  const told = status.degraded.join("\n");
  list.hidden = !told;
  if (list.dataset.told !== told) {
    list.dataset.told = told;
    list.replaceChildren(...status.degraded.map((sentence) => element("li", {}, sentence)));
  }
  picture(all);
  inFlight();
  finished("failed", now.failed, "none");
  finished("slow", now.slow, "none");
  deaths(status.deaths);
  routes(all);
}

async function look() {
  if (!paused && !document.hidden) {
    try {
      const answer = await ask("api/live");
      if (!answer.ok) throw new Error(await answer.text());
      const next = await answer.json();
      // Counters begin anew with a new web server.
      before = now && now.status.front.pid === next.status.front.pid ? now : null;
      now = next;
      past.push(sum(flows(), (flow) => flow.rate));
      if (past.length > HISTORY) past.shift();
      byId("lost").hidden = true;
      draw();
    } catch (error) {
      byId("lost").textContent = `The server does not answer: ${error.message.trim()}`;
      byId("lost").hidden = false;
    }
  }
  setTimeout(look, PAUSE);
}

byId("pause").addEventListener("click", () => {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  byId("pause").textContent = paused ? "Go on" : "Pause";
});
addEventListener("resize", () => { if (now) wires(); });
look();
