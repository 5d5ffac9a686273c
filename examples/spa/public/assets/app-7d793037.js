const page = document.querySelector("#page");

async function show() {
  const person = location.pathname.match(/^\/people\/(\d+)$/);
  const { hello } = await (await fetch("/api/hello")).json();
  page.textContent = person ? `Person ${person[1]}, ${hello}` : `Home, ${hello}`;
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a");
  if (!link) return;
  event.preventDefault();
  history.pushState(null, "", link.href);
  show();
});
addEventListener("popstate", show);
show();
