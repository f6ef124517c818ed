// A box that scrolls sideways is reached by keyboard; one that does not is no stop on the way through a page.
(() => {
  const boxes = ".math-block, .fer-scroll, .pst-scrollable-table-container";
  const mark = () => document.querySelectorAll(boxes).forEach(box => {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  });
  addEventListener("load", mark);
  addEventListener("resize", mark);
  document.addEventListener("toggle", mark, true); // what a fold hides has no width until it opens
})();
