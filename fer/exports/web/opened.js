// A page opened from a file: browsers load no modules then, so this is a plain script.
if (location.protocol === "file:") {
  addEventListener("DOMContentLoaded", () => {
    const problem = document.getElementById("problem");
    problem.textContent = "This folder has to come from a web server. Run python -m http.server --bind 127.0.0.1 in it, then open http://127.0.0.1:8000.";
    problem.hidden = false;
  });
}
