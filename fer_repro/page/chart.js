// Ink and rules of the chart follow the page; with a script running, the still picture below is not needed.
var chart = document.getElementById('{plot_id}');
var box = chart.closest('.fer-chart');
box.querySelector('.fer-still').hidden = true;
function paint() {
  var ink = getComputedStyle(box).color;
  var rule = ink.replace('rgb(', 'rgba(').replace(')', ', 0.18)');
  var dark = document.documentElement.dataset.theme === 'dark' || document.body.dataset.jpThemeLight === 'false';
  var face = dark ? '{dark}' : '{light}';
  Plotly.relayout(chart, {'font.color': ink, 'xaxis.gridcolor': rule, 'yaxis.gridcolor': rule, 'xaxis.linecolor': rule,
    'hoverlabel.bgcolor': face, 'hoverlabel.font.color': ink, 'hoverlabel.bordercolor': rule});
}
var watch = new MutationObserver(paint);
watch.observe(document.documentElement, {attributes: true, attributeFilter: ['data-theme']});
watch.observe(document.body, {attributes: true, attributeFilter: ['data-jp-theme-light']});
paint();
