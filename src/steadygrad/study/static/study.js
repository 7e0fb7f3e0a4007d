"use strict";
// The trials of one person on jsPsych: each answer is sent until the server has it, and then the next one is shown.

const status_ = document.getElementById("status");
let text = {};
let trials = [];
let next = 0;

function fill(words, values) {
  return words.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? values[name] : whole));
}

// Words are set as text, never as markup, whatever they are.
function made(tag, attributes = {}, ...inside) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null) element.setAttribute(name, value);
  }
  element.append(...inside);
  return element;
}

function picture(name, alt) {
  return made("img", { class: "picture", src: `/pictures/${encodeURIComponent(name)}.png`, alt });
}

const pause = (seconds) => new Promise((done) => setTimeout(done, 1000 * seconds));

// Sends until the server has answered: the same answer may come twice, and is taken once.
async function ask(method, path, body) {
  for (let wait = 0.5; ; wait = Math.min(2 * wait, 10)) {
    try {
      const response = await fetch(path, {
        method,
        headers: body ? { "content-type": "application/json" } : {},
        body: body ? JSON.stringify(body) : undefined,
      });
      if (response.status === 401) {
        location.replace("/");
        return new Promise(() => {});
      }
      if (response.ok) return await response.json();
      if (response.status < 500 && response.status !== 429) return null; // it will not be taken, however often
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
    }
    status_.textContent = text.waiting || "";
    await pause(wait);
  }
}

function progress(trial) {
  const shown = fill(text.progress, { position: trial.position + 1, count: trials.length });
  const bar = made("progress", { max: trials.length, value: trial.position, "aria-label": shown });
  const words = trial.kind === "practice" ? `${text.practice} · ${shown}` : shown;
  return made("p", { class: "progress" }, made("span", {}, words), bar);
}

function option(kind, name, value, words, wide = false) {
  return made("label", { class: wide ? "option wide" : "option" }, made("input", { type: kind, name, value }), made("span", {}, words));
}

function chooser(legend, rows, long = false) {
  return made("fieldset", {}, made("legend", {}, legend), made("div", { class: long ? "options long" : "options" }, ...rows));
}

// What a form says, or null while it says nothing yet.
function labelsForm(form, trial) {
  const long = trial.options.some((word) => word.length > 8);
  const rows = trial.options.map((word, i) => option("checkbox", "chosen", String(i), word));
  const none = option("checkbox", "none", "none", text.none, true);
  const first = chooser(trial.told ? fill(text.attention, { told: trial.told }) : text.question, rows, long);
  if (trial.told) first.querySelector("legend").className = "told";
  first.append(none);
  const second = chooser(text.question_best, [], long);
  second.hidden = true;
  form.append(first, second);
  const boxes = [...first.querySelectorAll("[name=chosen]")];
  const nothing = none.querySelector("input");
  const chosen = () => boxes.flatMap((box, i) => (box.checked ? [i] : []));
  form.addEventListener("change", (event) => {
    if (event.target === nothing && nothing.checked) boxes.forEach((box) => (box.checked = false));
    else if (event.target.name === "chosen" && event.target.checked) nothing.checked = false;
    if (event.target.name === "best") return;
    const kept = form.querySelector("[name=best]:checked");
    const places = chosen();
    second.hidden = places.length < 2;
    second.querySelector(".options").replaceChildren(
      ...(second.hidden ? [] : places.map((i) => option("radio", "best", String(i), trial.options[i]))),
    );
    const again = kept && second.querySelector(`[value="${kept.value}"]`);
    if (again) again.checked = true;
  });
  return () => {
    const places = chosen();
    const best = places.length === 1 ? String(places[0]) : form.querySelector("[name=best]:checked")?.value;
    if (nothing.checked) return { unrecognizable: true };
    if (best === undefined) return null;
    return { chosen: places.map((i) => trial.options[i]), best: trial.options[Number(best)] };
  };
}

function mapsForm(form) {
  const rows = [["left", text.left], ["right", text.right], ["none", text.no_difference]];
  form.append(chooser(form.dataset.question, rows.map(([value, words]) => option("radio", "preferred", value, words)), true));
  return () => {
    const found = form.querySelector("[name=preferred]:checked");
    return found && { preferred: found.value === "none" ? null : found.value };
  };
}

// Digits choose: the answer that is this digit, where there is one, or else by the order of the answers.
function digits(form, event) {
  if (event.ctrlKey || event.altKey || event.metaKey || !/^[0-9]$/.test(event.key)) return;
  const fields = [...form.querySelectorAll("fieldset:not([hidden])")].at(-1).querySelectorAll("input:not([name=none])");
  const named = [...fields].find((field) => field.nextElementSibling.textContent === event.key);
  (named || fields[(Number(event.key) + 9) % 10])?.click();
}

class Judgement {
  static info = {
    name: "steadygrad-judgement",
    version: "1.0.0",
    parameters: { trial: { type: jsPsychModule.ParameterType.OBJECT, default: undefined } },
    data: { position: { type: jsPsychModule.ParameterType.INT } },
  };

  // jsPsych goes on when the promise that it is given is kept.
  trial(display, { trial }) {
    return new Promise((done) => this.show(display, trial, () => done({ position: trial.position })));
  }

  async show(display, trial, done) {
    const asked = trial.kind === "maps" ? fill(text.question_maps, { predicted: trial.predicted }) : "";
    const image = picture(trial.image, text.alt_image);
    const form = made("form", { "data-question": asked, "data-position": trial.position });
    const shown = [image];
    display.replaceChildren(progress(trial), image, form);
    if (trial.kind === "maps") {
      const [left, right] = trial.maps.map((name, side) => picture(name, side ? text.alt_right : text.alt_left));
      shown.push(left, right);
      image.after(made("div", { class: "maps" }, ...[left, right].map((map) => made("div", {}, map, made("p", { class: "note" }, map.alt)))));
    }
    const read = trial.kind === "maps" ? mapsForm(form) : labelsForm(form, trial);
    const button = made("button", { class: "main", type: "submit", disabled: true }, text.next);
    form.append(made("p", { class: "onward" }, button));
    form.addEventListener("change", () => (button.disabled = !read()));
    const keys = (event) => digits(form, event);
    document.addEventListener("keydown", keys);
    await Promise.all(shown.map((picture) => picture.decode().catch(() => {})));
    const begun = performance.now();
    form.dataset.ready = "yes";
    form.querySelector("input").focus({ preventScroll: true });
    display.scrollIntoView({ block: "start" });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const answer = read();
      if (!answer || button.disabled) return;
      button.disabled = true;
      document.removeEventListener("keydown", keys);
      const seconds = Math.min((performance.now() - begun) / 1000, 86400);
      this.send(display, trial, { stimulus: trial.stimulus, seconds, ...answer }, done);
    });
    // Enter goes on wherever the keyboard is, as soon as there is an answer.
    form.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.target.localName !== "input") return;
      event.preventDefault();
      if (!button.disabled) form.requestSubmit();
    });
  }

  async send(display, trial, answer, done) {
    const late = setTimeout(() => (status_.textContent = text.sending), 400);
    const found = await ask("PUT", `/api/answers/${trial.position}`, answer);
    clearTimeout(late);
    if (found === null) {
      // Not an answer to what the server shows here: what it shows is asked for anew.
      location.reload();
      return;
    }
    status_.textContent = found.stored ? "" : text.elsewhere;
    next = found.next;
    if (!found.stored || found.label === undefined) return done();
    const words = fill(found.correct ? text.feedback_right : text.feedback_wrong, { label: found.label });
    display.querySelector("form").replaceChildren(
      made("p", { class: found.correct ? "good" : "bad", role: "status", tabindex: "-1" }, words),
      onward(done),
    );
    display.querySelector("form button").focus({ preventScroll: true });
  }
}

function onward(done) {
  const button = made("button", { class: "main", type: "button" }, text.go_on);
  button.addEventListener("click", done, { once: true });
  return made("p", { class: "onward" }, button);
}

class Intro {
  static info = {
    name: "steadygrad-intro",
    version: "1.0.0",
    parameters: { about: { type: jsPsychModule.ParameterType.STRING, default: undefined } },
    data: {},
  };

  trial(display, { about }) {
    return new Promise((done) => {
      const heading = made("h2", {}, text[`${about}_title`]);
      const paragraphs = text[about].map((words) => made("p", {}, words));
      display.replaceChildren(heading, ...paragraphs, onward(() => done({})));
      display.querySelector("button").focus({ preventScroll: true });
    });
  }
}

// What is said before the first trial of a kind.
function introOf(position) {
  const kind = trials[position].kind;
  if (position > 0 && trials[position - 1].kind === kind) return null;
  if (kind === "maps") return "maps";
  return position === 0 ? "instructions" : "practice_over";
}

async function main() {
  const found = await ask("GET", "/api/trials");
  ({ text, trials, next } = found);
  document.getElementById("trial").replaceChildren();
  const jsPsych = jsPsychModule.initJsPsych({ display_element: "trial", on_finish: () => location.replace("/done") });
  const intro = {
    timeline: [{ type: Intro, about: () => introOf(next) }],
    conditional_function: () => introOf(next) !== null,
  };
  const timeline = [intro, { type: Judgement, trial: () => trials[next] }];
  await jsPsych.run([{ timeline, loop_function: () => next < trials.length, conditional_function: () => next < trials.length }]);
}

main();
