// Copies the element that a button names. Without a clipboard (a page from a file, in some browsers) it selects it.
for (const button of document.querySelectorAll("[data-copies]")) {
  const source = document.getElementById(button.dataset.copies);
  const status = button.parentElement.querySelector("[role=status]");
  button.hidden = false;
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(source.textContent);
      status.textContent = "Copied.";
    } catch {
      getSelection().selectAllChildren(source);
      source.focus();
      status.textContent = "Selected: copy it with Ctrl-C.";
    }
  });
}
