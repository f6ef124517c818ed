// The text of a mark in a box beside it, for pointer and keyboard. Without this script the browser shows the titles.
for (const chart of document.querySelectorAll('.fer-chart:not([data-live])')) {
  chart.dataset.live = '';
  const tip = chart.querySelector('.fer-tip');
  for (const link of chart.querySelectorAll('svg a')) {
    const title = link.querySelector('title');
    link.setAttribute('aria-label', title.textContent);
    title.remove();
    const show = () => {
      tip.textContent = link.getAttribute('aria-label');
      tip.hidden = false;
      const mark = link.getBoundingClientRect(), box = chart.getBoundingClientRect();
      const left = mark.x + mark.width / 2 - tip.offsetWidth / 2 - box.x;
      const above = mark.y - box.y - tip.offsetHeight - 8;
      tip.style.left = `${Math.max(0, Math.min(left, box.width - tip.offsetWidth))}px`;
      tip.style.top = `${above + box.y > 0 ? above : mark.y + mark.height - box.y + 8}px`;
    };
    const hide = () => { tip.hidden = true; };
    link.addEventListener('pointerenter', show);
    link.addEventListener('focus', show);
    link.addEventListener('pointerleave', hide);
    link.addEventListener('blur', hide);
  }
  document.addEventListener('keydown', event => { if (event.key === 'Escape') tip.hidden = true; });
}
