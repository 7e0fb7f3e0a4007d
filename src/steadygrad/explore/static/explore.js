// The explorer: one request is under way at a time; what is wanted meanwhile is only the latest.
const $ = (selector) => document.querySelector(selector);
const [attack, step, said, trouble, models] = ["#attack", "#step", "#said", "#trouble", ".models"].map($);
const radii = step.dataset.radii.split(" "), largest = Number(step.dataset.largest);
const page = String(Math.random()).slice(2);
const PATIENCE = 300; // milliseconds after which a request is given up for a later one
let image = "", turn = 0, wanted = null, flight = null;

const tell = (text) => { trouble.textContent = text; trouble.hidden = !text; };
const problem = async (response) => {
  try { return (await response.json()).detail; } catch { return `The server answered ${response.status}.`; }
};

function ask() {
  if (!image) return;
  tell("");
  wanted = { image, attack: attack.value, step: step.value };
  const link = new URLSearchParams({ image, attack: attack.value, radius: radii[step.value] });
  history.replaceState(null, "", `?${link}`);
  if (!flight) answer();
  else if (performance.now() - flight.began > PATIENCE) flight.stop.abort();
}

async function answer() {
  while (wanted) {
    const now = wanted;
    wanted = null;
    flight = { stop: new AbortController(), began: performance.now() };
    const late = setTimeout(() => models.setAttribute("aria-busy", "true"), PATIENCE);
    try {
      const query = new URLSearchParams({ ...now, page, turn: ++turn });
      const response = await fetch(`/reached?${query}`, { signal: flight.stop.signal });
      if (response.ok) show(await response.json());
      else if (response.status !== 409) tell(await problem(response));
    } catch (error) {
      if (error.name !== "AbortError") tell("The server does not answer: is it still running?");
    }
    clearTimeout(late);
  }
  flight = null;
  models.removeAttribute("aria-busy");
}

function show({ eps, models: found }) {
  const marks = [];
  document.querySelectorAll(".model").forEach((card, i) => {
    const model = found[i], part = (name) => card.querySelector(name);
    part(".now").textContent = model.said;
    part(".now").classList.toggle("changed", model.changed);
    part(".before").textContent = model.clean;
    part(".sure").value = model.confidence;
    part(".image").src = model.image;
    part(".image").alt = `perturbed: predicted ${model.said}`;
    part(".change").src = model.change;
    part(".change").alt = `perturbation, ${model.largest}`;
    part(".largest").textContent = model.largest;
    card.querySelectorAll(".map").forEach((figure, k) => {
      const [before, after] = figure.querySelectorAll("img"), map = model.maps[k];
      before.src = map.before;
      after.src = map.after;
      figure.querySelector("b").textContent = map.said;
    });
    const known = [];
    for (const [kind, sign, words] of [["certified", "▮", "certified up to"], ["found", "▲", "a change was found at"]]) {
      if (model[kind] === null) continue;
      known.push(`${words} ${Number(model[kind].toPrecision(3))}`);
      if (model[kind] <= largest) marks.push({ kind, sign, at: model[kind] / largest });
    }
    part(".known").textContent = known.join("; ");
  });
  $(".marks").replaceChildren(...marks.map(({ kind, sign, at }) => {
    const mark = document.createElement("span");
    mark.className = kind;
    mark.textContent = sign;
    mark.style.left = `${100 * at}%`;
    return mark;
  }));
  $(".key").hidden = !marks.length;
  said.textContent = `ε ${eps}`;
  step.setAttribute("aria-valuetext", `${eps}: ${found.map((model) => `${model.name} ${model.said}`).join(", ")}`);
}

function choose(name, words) {
  image = name;
  $("#chosen").textContent = words;
  document.querySelectorAll(".thumbnail").forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.image === name)));
  if ($("#sample").value !== name) $("#sample").value = [...$("#sample").options].some((o) => o.value === name) ? name : "";
  ask();
}

function thumbnail(found) {
  const button = document.createElement("button"), picture = document.createElement("img");
  Object.assign(button, { type: "button", className: "thumbnail" });
  Object.assign(button.dataset, { image: found.image, said: found.said });
  Object.assign(picture, { className: "pixels", src: found.source, alt: found.said });
  button.append(picture);
  $("#own").before(button);
}

async function bring(file) {
  if (!file) return;
  tell("");
  try {
    const response = await fetch("/picture", { method: "POST", body: file, headers: { "content-type": "application/octet-stream" } });
    if (!response.ok) return tell(await problem(response));
    const found = await response.json();
    if (![...document.querySelectorAll(".thumbnail")].some((b) => b.dataset.image === found.image)) thumbnail(found);
    choose(found.image, found.said);
  } catch { tell("The server does not answer: is it still running?"); }
}

async function open(name) {
  const button = [...document.querySelectorAll(".thumbnail")].find((b) => b.dataset.image === name);
  if (button) return choose(name, button.dataset.said);
  const response = await fetch(`/sample?${new URLSearchParams({ image: name })}`);
  if (!response.ok) return tell(await problem(response));
  choose(name, (await response.json()).said);
}

step.addEventListener("input", ask);
attack.addEventListener("change", ask);
$("#sample").addEventListener("change", (event) => event.target.value && open(event.target.value));
$("#file").addEventListener("change", (event) => bring(event.target.files[0]));
$(".thumbnails").addEventListener("click", (event) => {
  const button = event.target.closest(".thumbnail");
  if (button) choose(button.dataset.image, button.dataset.said);
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("dropping", kind === "dragover");
    if (kind === "drop") bring(event.dataTransfer.files[0]);
  });
}

const link = new URLSearchParams(location.search);
if ([...attack.options].some((option) => option.value === link.get("attack"))) attack.value = link.get("attack");
if (radii.includes(link.get("radius"))) step.value = radii.indexOf(link.get("radius"));
open(link.get("image") || $(".thumbnail").dataset.image);
