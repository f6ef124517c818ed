// Filters, searches and sorts the leaderboard, which is complete without it. The address keeps the filters.
(function (board) {
  const table = board.querySelector('table'), body = table.tBodies[0], rows = Array.from(body.rows);
  const form = board.querySelector('form'), count = form.querySelector('output');
  const fields = Array.from(form.querySelectorAll('input, select'));
  const selects = fields.filter(field => field.tagName === 'SELECT');
  const texts = new Map(rows.map(row => {
    const cells = Array.from(row.cells, cell => cell.textContent);
    return [row, [...cells, row.dataset.words].join(' ').toLowerCase()];
  }));

  function filter() {
    // "class A" is one word: an A alone stands in most titles.
    const asked = form.elements.search.value.toLowerCase().replace(/\bclass\W+([a-z])\b/g, 'class-$1');
    const words = asked.split(/\s+/);
    rows.forEach(row => {
      row.hidden = !words.every(word => texts.get(row).includes(word))
        || selects.some(select => select.value && row.dataset[select.name] !== select.value);
    });
    count.textContent = rows.filter(row => !row.hidden).length + ' of ' + rows.length + ' models';
  }

  function keep() {
    const chosen = new URLSearchParams(fields.filter(field => field.value).map(field => [field.name, field.value]));
    history.replaceState(null, '', (String(chosen) ? '?' + chosen : location.pathname) + location.hash);
  }

  function sortBy(head, column) {
    const up = head.getAttribute('aria-sort') !== 'ascending';
    Array.from(head.parentNode.cells).forEach(other => other.removeAttribute('aria-sort'));
    head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
    const key = row => row.cells[column].dataset.sort;
    rows.slice().sort((a, b) => {
      const x = key(a), y = key(b), empty = (x === '') - (y === '');
      if (empty) return empty;
      const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
      return up ? order : -order;
    }).forEach(row => body.append(row));
  }

  Array.from(table.tHead.rows[0].cells).forEach((head, column) => {
    const button = document.createElement('button');
    button.type = 'button';
    button.title = 'Sort by this column';
    button.append(...head.childNodes);
    button.addEventListener('click', () => sortBy(head, column));
    head.append(button);
  });
  const given = new URLSearchParams(location.search);
  fields.forEach(field => {
    field.value = given.get(field.name) || '';
    if (field.selectedIndex < 0) field.value = '';
  });
  form.addEventListener('input', () => { filter(); keep(); });
  form.addEventListener('submit', event => event.preventDefault());
  form.addEventListener('reset', () => setTimeout(() => { filter(); keep(); }));
  form.hidden = false;
  filter();
})(document.currentScript.parentNode);
