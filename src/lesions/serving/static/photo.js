// The listeners sit on the root: the template below it is drawn anew with each photograph.
let latest = 0;

function give(url, problem) {
  props.problem = problem || "";
  props.value = url;
  if (url) trigger("upload");
}

async function take(file) {
  const mine = ++latest;
  trigger("clear");
  if (!file) return give("");
  if (file.size > props.most)
    return give("", `the file is too large: at most ${props.most / 1e6} MB`);
  const reader = new FileReader();
  reader.onload = () => { if (mine === latest) give(reader.result); };
  reader.onerror = () => { if (mine === latest) give("", "the file cannot be read"); };
  reader.readAsDataURL(file);
}

element.addEventListener("change", (event) => {
  if (event.target.type === "file" && event.target.files.length) take(event.target.files[0]);
});
element.addEventListener("click", (event) => {
  const example = event.target.closest(".example");
  if (example) { ++latest; trigger("clear"); give(example.querySelector("img").src); }
  if (event.target.closest(".remove")) take(null);
});
for (const name of ["dragover", "dragleave", "drop"])
  element.addEventListener(name, (event) => {
    event.preventDefault();
    element.querySelector(".drop").classList.toggle("over", name === "dragover");
    if (name === "drop") take(event.dataTransfer.files[0]);
  });
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) take(event.clipboardData.files[0]);
});

// What the page shows: bars, overlay, sentence. An answer counts only if nothing was asked since.
const NOTHING = [{ label: "", confidences: [] }, "", ""];
let asked = 0, shown = NOTHING;

window.lesions = {
  clear() {
    ++asked;
    return (shown = NOTHING);
  },
  async ask(photo, age, sex, site) {
    const mine = asked;
    if (!photo) return shown;
    const answer = await predict(photo, { age, sex, site });
    if (mine === asked) shown = answer;
    return shown;
  },
};

async function predict(photo, fields) {
  const known = Object.entries(fields).filter(([, value]) => value);
  const query = new URLSearchParams([...known, ["explain", "true"]]);
  const body = Uint8Array.from(atob(photo.split(",")[1]), (letter) => letter.charCodeAt(0));
  try {
    const reply = await fetch(`/api/predict?${query}`, { method: "POST", body });
    const answer = await reply.json();
    return reply.ok ? success(answer) : failure(reason(answer.detail));
  } catch {
    return failure("the server does not answer");
  }
}

function success(answer) {
  const probs = Object.entries(answer.calibrated || answer.probs);
  if (probs.length === 1) probs.push([`not ${probs[0][0]}`, 1 - probs[0][1]]);
  const bars = probs.sort((a, b) => b[1] - a[1])
    .map(([name, confidence]) => ({ label: props.names[name] || name, confidence }));
  const picture = `<figure><img src="${answer.cam}" alt="Grad-CAM over the photograph">
    <figcaption>Grad-CAM. Brighter: more influence on the prediction.</figcaption></figure>`;
  return [{ label: bars[0].label, confidences: bars }, picture, `<p>${escaped(answer.sentence)}</p>`];
}

function failure(problem) {
  const text = `<p class="problem" role="alert">No answer: ${escaped(problem)}.</p>`;
  return [NOTHING[0], "", text];
}

function reason(detail) {
  if (!Array.isArray(detail)) return detail;
  return detail.map((item) => item.msg.replace("Value error, ", "")).join("; ");
}

function escaped(text) {
  const letters = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
  return String(text).replace(/[&<>"]/g, (letter) => letters[letter]);
}
