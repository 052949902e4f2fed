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
