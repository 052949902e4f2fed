// The listeners sit on the root: the template below it is drawn anew with each photograph.
let latest = 0, fresh = false;

function give(url, problem) {
  props.problem = problem || "";
  props.value = url;
  fresh = true;
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
// A file that is no picture: its reason will stand beside it. Errors do not bubble.
element.addEventListener("error", (event) => event.target.remove(), true);
for (const name of ["dragover", "dragleave", "drop"])
  element.addEventListener(name, (event) => {
    event.preventDefault();
    element.querySelector(".drop").classList.toggle("over", name === "dragover");
    if (name === "drop") take(event.dataTransfer.files[0]);
  });
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) take(event.clipboardData.files[0]);
});

// What the page shows: verdict and overlay. An answer counts only if nothing was asked since.
const NOTHING = ["", ""];
const WAITING = ['<p class="waiting"><span></span>Looking at the photograph …</p>', ""];
let asked = 0, shown = NOTHING;

window.lesions = {
  clear() {
    ++asked;
    return (shown = NOTHING);
  },
  wait(photo) {
    ++asked;
    if (photo && fresh) scroll();
    return (shown = photo ? WAITING : NOTHING);
  },
  async ask(photo, age, sex, site) {
    const mine = asked;
    if (!photo) return shown;
    const answer = await predict(photo, { age, sex, site });
    if (mine === asked) {
      shown = answer;
      if (fresh) scroll();
      fresh = false;
    }
    return shown;
  },
};

// On a phone the answer is below the photograph; it is drawn after this returns.
function scroll() {
  if (!matchMedia("(max-width: 700px)").matches) return;
  const options = { behavior: "smooth", block: "start" };
  setTimeout(() => document.querySelector("#says").scrollIntoView(options), 150);
}

async function predict(photo, fields) {
  const known = Object.entries(fields).filter(([, value]) => value);
  const query = new URLSearchParams([...known, ["explain", "true"]]);
  const body = Uint8Array.from(atob(photo.split(",")[1]), (letter) => letter.charCodeAt(0));
  try {
    const reply = await fetch(`/api/predict?${query}`, { method: "POST", body });
    const answer = await reply.json();
    if (reply.ok) return success(answer, photo);
    if (/^(the (picture|file)|this) is/.test(answer.detail)) element.querySelector(".given")?.remove();
    return failure(reason(answer.detail));
  } catch {
    return failure("the server does not answer");
  }
}

function success(answer, photo) {
  const { text, rates, value, threshold, warning } = answer.verdict;
  const probs = Object.entries(answer.calibrated || answer.probs).sort((a, b) => b[1] - a[1]);
  const several = probs.length > 1;
  const scale = several ? "score for malignancy" : "probability";
  const marked = threshold === null ? "" : `, threshold ${percent(threshold)}`;
  const mark = threshold === null ? "" : `<i style="left: ${100 * threshold}%"></i>`;
  const classes = several ? probs.map(([name, share]) =>
    `<tr><th scope="row">${escaped(props.names[name] || name)}</th><td>${bar(share, "")}</td>
      <td>${percent(share)}</td></tr>`).join("") : "";
  const kind = answer.positive === null ? "" : answer.positive ? "above" : "below";
  const says = `<p class="verdict ${kind}"><b>${escaped(text)}</b>${escaped(rates)}</p>
    ${warning && `<p class="warning">${escaped(warning)}</p>`}
    ${bar(value, mark)}<p class="scale">${scale} ${percent(value)}${marked}</p>
    ${classes && `<table>${classes}</table>`}<p>${emphasised(answer.sentence)}</p>`;
  const overlay = `<figure><label><input type="checkbox" checked> Grad-CAM</label>
    <div class="stack"><img src="${photo}" alt="the photograph" style="object-fit: ${props.fit}">
    <img class="cam" src="${answer.cam}" alt="Grad-CAM over the photograph"></div>
    <figcaption>Brighter: more influence on the prediction.</figcaption></figure>`;
  return [says, overlay];
}

function emphasised(sentence) {
  return escaped(sentence).replace(/Cannot exclude: [^.]*\./, "<b>$&</b>");
}

function bar(share, mark) {
  return `<div class="bar" aria-hidden="true"><b style="width: ${100 * share}%"></b>${mark}</div>`;
}

function percent(share) {
  return `${(100 * share).toFixed(share < 0.1 || share > 0.99 ? 1 : 0)}\u00a0%`;
}

function failure(problem) {
  return [`<p class="problem" role="alert">No answer: ${escaped(problem)}.</p>`, ""];
}

function reason(detail) {
  if (!Array.isArray(detail)) return detail;
  return detail.map((item) => item.msg.replace("Value error, ", "")).join("; ");
}

function escaped(text) {
  const letters = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
  return String(text).replace(/[&<>"]/g, (letter) => letters[letter]).replace(/ %/g, "\u00a0%");
}
