"use strict";
// Whatever a person, a model or data says is set as text and never as markup.
const element = (id) => document.getElementById(id);
const SIDES = ["base", "tuned"];
let asking = null;

function showNote(text) {
  element("note").textContent = text;
}

function show(message) {
  if ("ahead" in message) showNote(message.ahead ? `Waiting: ${message.ahead} before you.` : "Answering …");
  if ("error" in message) showNote(`Not answered: ${message.error}.`);
  if ("note" in message) showNote(message.note);
  for (const side of SIDES) if (side in message) element(side).textContent = message[side];
  return "error" in message || "note" in message;
}

async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    yield* parts;
  }
}

async function ask(question, signal) {
  const body = JSON.stringify({ question });
  const response = await fetch("/ask", { method: "POST", headers: { "Content-Type": "application/json" }, body, signal });
  let ended = false;
  for await (const line of lines(response.body)) if (!signal.aborted) ended = show(JSON.parse(line)) || ended;
  if (!ended) throw new Error("the answer broke off");
}

async function startAsking() {
  asking?.abort();
  const mine = (asking = new AbortController());
  for (const side of SIDES) {
    element(side).textContent = "";
    element(side).setAttribute("aria-busy", "true");
  }
  showNote("Asking …");
  element("stop").disabled = false;
  try {
    await ask(element("question").value, mine.signal);
  } catch (error) {
    if (asking === mine) showNote(mine.signal.aborted ? "Stopped." : "The answer broke off: is medtune demo still running?");
  }
  if (asking !== mine) return;
  asking = null;
  element("stop").disabled = true;
  for (const side of SIDES) element(side).removeAttribute("aria-busy");
}

element("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  startAsking();
});
element("question").addEventListener("keydown", (event) => {
  // While a word is put together (Chinese, Japanese), Enter ends the word.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  startAsking();
});
element("stop").addEventListener("click", () => asking?.abort());

let searches = 0;
async function search() {
  const mine = ++searches;
  const wanted = Object.fromEntries(["words", "kind", "change"].map((id) => [id, element(id).value]));
  const response = await fetch(`/examples?${new URLSearchParams(wanted)}`);
  const found = await response.json();
  if (mine !== searches) return;
  element("found").textContent = found.said;
  const nothing = new Option(found.examples.length ? "Choose one …" : "No question matches", "");
  element("picked").replaceChildren(nothing, ...found.examples.map((one) => new Option(one.question, one.number)));
  element("example").hidden = true;
}

async function pick() {
  const number = element("picked").value;
  element("example").hidden = true;
  if (number === "") return;
  const one = await (await fetch(`/examples/${number}`)).json();
  if (element("picked").value !== number) return;
  element("asked").textContent = one.asked;
  element("right").textContent = one.right;
  element("again").hidden = !one.plain;
  for (const side of SIDES) {
    element(`${side}-then`).textContent = one[side].text;
    element(`${side}-verdict`).textContent = one[side].verdict + (one[side].truncated ? ", cut off" : "");
    element(`${side}-verdict`).dataset.verdict = one[side].verdict;
  }
  element("example").hidden = false;
}

if (element("search")) {
  let typed;
  element("search").addEventListener("submit", (event) => event.preventDefault());
  element("search").addEventListener("input", () => {
    clearTimeout(typed);
    typed = setTimeout(search, 150);
  });
  element("picked").addEventListener("change", pick);
  element("again").addEventListener("click", () => {
    element("question").value = element("asked").textContent;
    element("question").focus();
    startAsking();
  });
  search();
}
