addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => { d.open = true; }));

// The sliders of samples: a step's pictures and captions take the place of the last ones of the strip.
document.documentElement.classList.add("moves");
for (const slide of document.querySelectorAll(".slide")) {
  const [range, said, back] = ["input", "output", "button"].map((name) => slide.querySelector(name));
  const parts = (root) => [...root.querySelectorAll("figure")].map((figure) => ({
    picture: [...figure.querySelectorAll("img")].at(-1), caption: figure.querySelector("figcaption"),
  }));
  const steps = [...slide.parentElement.querySelectorAll("template")].map((step) => parts(step.content));
  const shown = parts(slide.parentElement.querySelector(".strip")).slice(-steps[0].length);
  const still = shown.map(({ picture, caption }) => ({ picture: picture.cloneNode(), caption: caption.cloneNode(true) }));
  const words = said.textContent;
  const show = (values, text) => {
    shown.forEach(({ picture, caption }, i) => {
      [picture.src, picture.alt] = [values[i].picture.src, values[i].picture.alt];
      caption.innerHTML = values[i].caption.innerHTML;
    });
    said.textContent = text;
    range.setAttribute("aria-valuetext", text);
  };
  const move = () => {
    const prediction = steps[range.value][0].caption.querySelector("b").textContent;
    show(steps[range.value], `ε ${range.dataset.radii.split(" ")[range.value]}, ${prediction}`);
  };
  const reset = () => { range.value = range.defaultValue; show(still, words); };
  range.addEventListener("input", move);
  back.addEventListener("click", reset);
  addEventListener("beforeprint", () => { if (said.textContent !== words) show(still, words); });
  reset();
}
