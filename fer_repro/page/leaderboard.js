// Sorts by a column's data-sort values (numbers as numbers) and hides rows without the words searched for.
// The table is complete without it.
(function (box) {
  var table = box.querySelector('table'), body = table.tBodies[0], rows = Array.from(body.rows);
  var search = box.querySelector('input'), status = box.querySelector('output');
  Array.from(table.tHead.rows[0].cells).forEach(function (head, column) {
    var button = document.createElement('button');
    button.type = 'button';
    button.append.apply(button, Array.from(head.childNodes));
    head.append(button);
    head.setAttribute('aria-sort', 'none');
    button.addEventListener('click', function () {
      var up = head.getAttribute('aria-sort') !== 'ascending';
      Array.from(head.parentNode.cells).forEach(function (other) { other.setAttribute('aria-sort', 'none'); });
      head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
      var key = function (row) { return row.cells[column].dataset.sort; };
      rows.slice().sort(function (a, b) {
        var x = key(a), y = key(b), empty = (x === '') - (y === '');
        if (empty) { return empty; }
        var order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
        return up ? order : -order;
      }).forEach(function (row) { body.append(row); });
    });
  });
  function filter() {
    var wanted = search.value.toLowerCase().split(/\s+/), shown = 0;
    rows.forEach(function (row) {
      var words = row.textContent.toLowerCase();
      row.hidden = !wanted.every(function (word) { return words.includes(word); });
      shown += !row.hidden;
    });
    status.textContent = shown + ' of ' + rows.length + ' rows.';
  }
  search.addEventListener('input', filter);
  box.querySelector('.fer-search').hidden = false;
  filter();
})(document.currentScript.parentNode);
