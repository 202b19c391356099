'use strict';
// The page without this script: verdicts, stories, commands. With it: a list that sorts and filters, one run at a time, and pictures.
(() => {
const $ = (selector, within = document) => within.querySelector(selector);
const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];
const make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value); else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
};
const root = document.documentElement;
const colour = name => getComputedStyle(root).getPropertyValue(name).trim();
const clamp = (x, low, high) => Math.max(low, Math.min(high, x));
const seconds = ms => (ms / 1000).toFixed(3);
const span = ms => ms < 1 ? `${(ms * 1000).toFixed(0)} µs` : ms < 1000 ? `${+ms.toFixed(1)} ms` : ms < 120000 ? `${+(ms / 1000).toFixed(2)} s` : `${+(ms / 60000).toFixed(1)} min`;
const stages = [];

// ── light and dark
const themes = ['auto', 'light', 'dark'];
let theme = 'auto';
const themed = next => {
  theme = next;
  if (theme === 'auto') root.removeAttribute('data-theme'); else root.dataset.theme = theme;
  $('#theme span').textContent = theme;
  stages.forEach(stage => stage.recolour());
};
$('#theme').hidden = false;
$('#theme').addEventListener('click', () => themed(themes[(themes.indexOf(theme) + 1) % 3]));
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => stages.forEach(stage => stage.recolour()));

// ── the list of runs
document.body.classList.add('live');
const rows = $$('#runs tbody tr');
const wanted = new Set();
const filter = $('#filter');
filter.hidden = false;
const sift = () => {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    const fits = (wanted.size === 0 || wanted.has(row.dataset.word)) && words.every(word => text.includes(word));
    row.hidden = !fits;
    shown += fits;
  }
  $('#none').hidden = shown > 0;
  return shown;
};
filter.addEventListener('input', sift);
for (const chip of $$('.chip')) {
  chip.addEventListener('click', () => {
    const key = chip.dataset.word;
    if (!wanted.delete(key)) wanted.add(key);
    chip.classList.toggle('on', wanted.has(key));
    chip.setAttribute('aria-pressed', wanted.has(key));
    sift();
  });
}
const keys = {
  class: row => +row.dataset.rank, took: row => +row.dataset.took, count: row => +row.dataset.count, name: row => $('a', row).textContent,
};
const sort = (key, down) => {
  const of = keys[key];
  const sign = down ? -1 : 1;
  const order = (a, b) => typeof of(a) === 'number' ? of(a) - of(b) : of(a).localeCompare(of(b), 'en');
  rows.sort((a, b) => sign * order(a, b) || +a.dataset.entry - +b.dataset.entry);
  $('#runs tbody').append(...rows);
};
for (const head of $$('#runs th')) {
  head.tabIndex = 0;
  const click = () => {
    const down = head.getAttribute('aria-sort') === 'ascending';
    $$('#runs th').forEach(other => other.removeAttribute('aria-sort'));
    head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
    sort(head.dataset.key, down);
  };
  head.addEventListener('click', click);
  head.addEventListener('keydown', event => event.key === 'Enter' && click());
}
for (const row of rows) row.addEventListener('click', event => { if (event.target.tagName !== 'A') location.hash = `run-${row.dataset.entry}`; });

// ── one run at a time
const entries = $$('.entry');
const open = () => {
  const chosen = entries.find(entry => `#${entry.id}` === location.hash.split('/')[0]);
  const phone = matchMedia('(max-width: 900px)').matches;
  document.body.classList.toggle('one', Boolean(chosen) && entries.length > 1);
  const first = rows.length && rows.find(row => !row.hidden);
  const shown = chosen || (phone && entries.length > 1 ? null : entries.find(entry => first && entry.id === `run-${first.dataset.entry}`) || entries[0]);
  for (const entry of entries) entry.hidden = entry !== shown;
  for (const row of rows) row.classList.toggle('open', Boolean(shown) && shown.id === `run-${row.dataset.entry}`);
  if (shown) draw(shown);
  if (chosen && entries.length > 1) scrollTo(0, 0);
};
const draw = entry => {
  for (const place of $$('.stage', entry)) if (!place.stage) { place.stage = new Stage(place); stages.push(place.stage); }
};
addEventListener('hashchange', open);
$$('.back').forEach(back => { back.hidden = entries.length < 2; });
for (const code of $$('.again code')) {
  const text = code.textContent;
  const button = make('button', {type: 'button', class: 'copy', onclick: () => {
    const done = () => { button.textContent = 'copied'; setTimeout(() => { button.textContent = 'copy'; }, 1500); };
    if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, () => {}); else getSelection().selectAllChildren(code);
  }}, 'copy');
  code.parentNode.insertBefore(button, code);
}
for (const button of $$('.show')) {
  button.hidden = false;
  button.addEventListener('click', () => {
    const entry = button.closest('.entry');
    draw(entry);
    const stage = $$('.stage', entry)[+button.dataset.scene].stage;
    stage.element.scrollIntoView({block: 'start'});
    stage.choose(+button.dataset.mark, true);
  });
}

// ── time: as it is, or with its idle parts squeezed
// A gap longer than KEPT counts as KEPT × (1 + ln(gap / KEPT)): what happens stays to scale, what does not shrinks.
const KEPT = 4;
class Scale {
  constructor(times, end, squeezed) {
    const all = [...new Set([0, ...times, end])].sort((a, b) => a - b);
    this.t = all;
    this.u = [0];
    for (let i = 1; i < all.length; i++) {
      const gap = all[i] - all[i - 1];
      this.u.push(this.u[i - 1] + (squeezed && gap > KEPT ? KEPT * (1 + Math.log(gap / KEPT)) : gap));
    }
    this.length = this.u[this.u.length - 1] || 1;
  }
  static find(list, x) {
    let low = 0, high = list.length - 1;
    while (low < high - 1) { const mid = (low + high) >> 1; if (list[mid] <= x) low = mid; else high = mid; }
    return low;
  }
  map(from, to, x) {
    if (from.length < 2) return x;
    const i = Scale.find(from, x);
    const width = from[i + 1] - from[i] || 1;
    return to[i] + (x - from[i]) / width * (to[i + 1] - to[i]);
  }
  of(t) { return this.map(this.t, this.u, t); }
  at(u) { return this.map(this.u, this.t, u); }
}

const HUES = {
  user: '--ink', 'controller-manager': 208, scheduler: 186, 'snapshot-controller': 262, provisioner: 128, attacher: 300, resizer: 42, snapshotter: 280,
  'driver-controller': 12, 'driver-node': 28, registrar: 232, kubelet: 218, node: 218,
};
const ROW = 17, PAD = 8, AXIS = 24, NEAR = 7;
const isBar = mark => mark.sort === 'call' || mark.sort === 'question';

// ── a picture
class Stage {
  constructor(element) {
    this.element = element;
    this.data = JSON.parse($('script', element).textContent);
    this.marks = this.data.marks;
    this.kinds = new Set(['call', 'question', 'write', 'event', 'process', 'fault', 'step', 'machine']);
    this.chosen = -1;
    this.hovered = -1;
    this.life = null;
    this.flags = $$('.show', element.closest('.entry')).filter(b => $$('.stage', element.closest('.entry'))[+b.dataset.scene] === element).map(b => +b.dataset.mark);
    this.build();
    this.rescale(true);
    element.classList.add('drawn');
    this.recolour();
    this.resize();
    new ResizeObserver(() => this.resize()).observe(this.canvas);
    this.relist();
    this.tell();
  }

  build() {
    const lives = make('select', {title: 'Follow an object: its history, and what concerns it', onchange: event => this.follow(event.target.value)}, make('option', {value: ''}, 'all objects'));
    this.data.lives.map((life, nth) => ({life, nth})).sort((a, b) => Stage.order(a.life) - Stage.order(b.life) || a.nth - b.nth)
      .forEach(({life, nth}) => lives.append(make('option', {value: nth}, life.name)));
    const button = (label, title, act) => make('button', {type: 'button', title, 'aria-label': title, onclick: act}, label);
    const check = (label, title, on, act) => make('label', {title}, Object.assign(make('input', {type: 'checkbox', onchange: e => act(e.target.checked)}), {checked: on}), label);
    const toggle = (label, title, ...sorts) => check(label, title, true, on => { sorts.forEach(s => on ? this.kinds.add(s) : this.kinds.delete(s)); this.relist(); this.draw(); });
    this.lives = lives;
    this.squeeze = true;
    const bar = make('div', {class: 'bar'},
      make('span', {class: 'title'}, this.element.dataset.title || 'what happened'), lives,
      toggle('calls', 'CSI calls'), toggle('writes', 'API writes', 'write'), toggle('events', 'Kubernetes events', 'event'), make('span', {class: 'grow'}),
      check('squeeze idle', 'Idle time is drawn shorter than it is', true, on => { this.squeeze = on; this.rescale(true); this.draw(); }),
      make('span', {class: 'zoom'}, button('−', 'Zoom out', () => this.zoom(1.6)), button('+', 'Zoom in', () => this.zoom(1 / 1.6)), button('fit', 'The whole run', () => this.fit())));
    const calls = $$('label', bar)[0];
    $('input', calls).onchange = event => { ['call', 'question'].forEach(s => event.target.checked ? this.kinds.add(s) : this.kinds.delete(s)); this.relist(); this.draw(); };
    this.canvas = make('canvas', {tabindex: 0, role: 'application', 'aria-label': 'Lanes of the processes over virtual time. Arrows move, plus and minus zoom, n and p go from one event to the next.'});
    this.hint = make('p', {class: 'hint'}, 'drag or ← → to move · Ctrl + wheel, pinch or + − to zoom · n and p for the next and the previous event · click for details');
    this.search = make('input', {type: 'search', placeholder: 'find in the lines …', 'aria-label': 'Find in the lines', oninput: () => this.relist()});
    this.count = make('span', {class: 'dim'});
    this.tall = make('div', {class: 'tall'});
    this.lines = make('div', {class: 'lines', tabindex: 0, 'aria-label': 'The trace', onscroll: () => this.rows()}, this.tall);
    this.detail = make('div', {class: 'detail', 'aria-live': 'polite'});
    const parts = [bar, make('div', {class: 'scroll'}, this.canvas), this.hint, make('div', {class: 'below'}, make('div', {class: 'log'}, make('div', {class: 'bar'}, this.search, this.count), this.lines), this.detail)];
    if (this.data.leftOut) parts.splice(3, 0, make('p', {class: 'hint call'}, `The last ${this.data.leftOut} events are left out here; wavetank run --format json has all.`));
    this.element.append(...parts);
    this.pen = this.canvas.getContext('2d');
    this.hands();
  }

  static order(life) { const at = ['pvc', 'pod', 'pv', 'va', 'vs', 'vsc', 'node', 'csinode', 'sc'].indexOf(life.kind); return at < 0 ? 99 : at; }

  // Where everything is: across in units of the scale, down in pixels.
  rescale(fit) {
    const times = [];
    for (const mark of this.marks) { times.push(mark.at); if (mark.took != null) times.push(mark.at + mark.took); }
    const end = Math.max(this.data.end, ...[times.reduce((a, b) => Math.max(a, b), 0)]);
    this.scale = new Scale(times, end, this.squeeze);
    for (const mark of this.marks) {
      mark.u = this.scale.of(mark.at);
      mark.v = !isBar(mark) ? mark.u : mark.took == null ? this.scale.length : this.scale.of(mark.at + mark.took);
    }
    if (fit) this.fit(false);
  }
  fit(draw = true) { const pad = this.scale.length * 0.015; this.from = -pad; this.to = this.scale.length + pad; if (draw) this.draw(); }

  layout() {
    const rowsOf = this.data.lanes.map(() => 1);
    for (const mark of this.marks) rowsOf[mark.lane] = Math.max(rowsOf[mark.lane], (mark.row || 0) + 1);
    this.gutter = this.width < 620 ? 0 : 168;
    const head = this.gutter ? 0 : 15;
    let y = AXIS;
    this.tracks = [];
    if (this.life) {
      y += 4;
      for (const [label, points] of this.life.tracks) { this.tracks.push({label, points, y: y + head, height: 17, top: y}); y += 20 + head; }
      y += 6;
    }
    this.laneAt = rowsOf.map(rows => { const at = {y: y + head, top: y, height: rows * ROW + PAD}; y += at.height + head; return at; });
    this.height = y + 6;
  }

  resize() {
    const width = this.element.clientWidth;
    if (!width) return;
    this.width = width;
    this.layout();
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(this.height * ratio);
    this.canvas.style.height = `${this.height}px`;
    this.pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.draw();
  }

  recolour() {
    this.ink = {};
    for (const name of ['ink', 'soft', 'line', 'faint', 'sheet', 'lane', 'accent', 'good', 'bad', 'warn', 'gone', 'fault', 'sel']) this.ink[name] = colour(`--${name}`);
    this.dark = colour('color-scheme') === 'dark' || getComputedStyle(root).colorScheme === 'dark';
    if (this.width) this.draw();
  }

  hue(role, strong) {
    const hue = HUES[role];
    if (typeof hue !== 'number') return this.ink.soft;
    return this.dark ? `hsl(${hue} ${strong ? 62 : 40}% ${strong ? 66 : 58}%)` : `hsl(${hue} ${strong ? 62 : 48}% ${strong ? 34 : 44}%)`;
  }
  tone(mark) {
    if (mark.sort === 'fault') return this.ink.fault;
    return {good: this.ink.good, bad: this.ink.bad, warn: this.ink.warn, gone: this.ink.gone, dim: this.ink.soft}[mark.tone] || this.ink.ink;
  }

  x(u) { return this.gutter + (u - this.from) / (this.to - this.from) * (this.width - this.gutter); }
  unit(x) { return this.from + (x - this.gutter) / (this.width - this.gutter) * (this.to - this.from); }

  draw() {
    if (this.pending || !this.width) return;
    this.pending = true;
    requestAnimationFrame(() => { this.pending = false; this.paint(); });
  }

  paint() {
    const {pen, ink, width, height} = this;
    pen.clearRect(0, 0, width, height);
    pen.font = `11px ${getComputedStyle(document.body).fontFamily}`;
    pen.textBaseline = 'middle';
    this.data.lanes.forEach((lane, nth) => {
      const at = this.laneAt[nth];
      if (nth % 2 === 0) { pen.fillStyle = ink.lane; pen.fillRect(0, at.top, width, at.y + at.height - at.top); }
    });
    this.axis();
    pen.save();
    pen.beginPath();
    pen.rect(this.gutter, 0, width - this.gutter, height);
    pen.clip();
    this.steps();
    this.ribbons();
    this.bars();
    this.ticks();
    this.flagged();
    pen.restore();
    this.names();
  }

  axis() {
    const {pen, ink, width, height} = this;
    const room = width < 620 ? 78 : 96;
    let last = -1e9;
    pen.textAlign = 'center';
    const count = Math.floor((width - this.gutter) / room);
    const units = [];
    for (let i = 0; i <= count; i++) units.push(this.unit(this.gutter + 40 + i * room));
    const step = (this.to - this.from) / (width - this.gutter);
    for (const u of units) {
      if (u < 0 || u > this.scale.length) continue;
      const t = this.scale.at(u);
      const near = Math.abs(this.scale.at(u + step) - t);
      const digits = near >= 500 ? 0 : near >= 50 ? 1 : near >= 5 ? 2 : 3;
      const unit = 10 ** (3 - digits);
      const round = Math.round(t / unit) * unit;
      const x = this.x(this.scale.of(clamp(round, 0, this.scale.t[this.scale.t.length - 1])));
      if (x - last < room * 0.6) continue;
      last = x;
      pen.fillStyle = ink.line;
      pen.fillRect(Math.round(x), AXIS - 4, 1, height - AXIS);
      pen.fillStyle = ink.soft;
      pen.fillText(`${(round / 1000).toFixed(digits)} s`, x, 11);
    }
  }

  steps() {
    const {pen, ink} = this;
    pen.textAlign = 'left';
    for (const mark of this.marks) {
      if (mark.sort !== 'step' && mark.sort !== 'fault') continue;
      const x = this.x(mark.u);
      if (x < this.gutter - 2 || x > this.width + 2) continue;
      pen.fillStyle = mark.sort === 'fault' ? ink.fault : ink.soft;
      pen.globalAlpha = mark.sort === 'fault' ? 0.5 : 0.28;
      pen.fillRect(Math.round(x), AXIS - 4, 1, this.height);
      pen.globalAlpha = 1;
    }
  }

  ribbons() {
    const {pen, ink} = this;
    pen.textAlign = 'left';
    const gone = this.life && this.life.gone != null ? this.scale.of(this.life.gone) : this.scale.length;
    for (const track of this.tracks) {
      track.points.forEach(([t, value], nth) => {
        if (value === '') return;
        const next = track.points[nth + 1];
        const x = Math.max(this.x(this.scale.of(t)), this.gutter - 4);
        const end = Math.min(this.x(next ? this.scale.of(next[0]) : gone), this.width + 4);
        if (end < this.gutter || x > this.width || end <= x) return;
        const good = ['Bound', 'Running', 'True', 'true', 'attached', 'Ready'].includes(value);
        const bad = ['Lost', 'Failed', 'False'].includes(value) || /error/.test(track.label) || /Infeasible|Failed/.test(value);
        pen.globalAlpha = 0.22;
        pen.fillStyle = bad ? ink.bad : good ? ink.good : ink.accent;
        pen.fillRect(x, track.y, Math.max(1, end - x - 1), track.height);
        pen.globalAlpha = 1;
        pen.fillRect(x, track.y, 2, track.height);
        pen.fillStyle = ink.ink;
        this.text(value, x + 6, track.y + 9, end - x - 9);
      });
    }
  }

  text(text, x, y, room) {
    if (room < 12) return;
    const {pen} = this;
    let shown = text;
    if (pen.measureText(shown).width > room) {
      const keep = Math.floor(shown.length * room / pen.measureText(shown).width) - 1;
      if (keep < 2) return;
      shown = `${shown.slice(0, keep)}…`;
    }
    pen.fillText(shown, x, y);
  }

  visible(mark) { return this.kinds.has(mark.sort); }
  faded(nth) { return this.concern && !this.concern.has(nth) && this.marks[nth].sort !== 'step' && this.marks[nth].sort !== 'fault'; }
  barBox(mark, lane) {
    const at = this.laneAt[lane];
    const x = this.x(mark.u);
    const row = lane === mark.lane ? mark.row || 0 : 0;
    return {x, y: at.y + PAD / 2 + row * ROW + 1, w: Math.max(2, this.x(mark.v) - x), h: ROW - 3};
  }

  bars() {
    const {pen, ink} = this;
    pen.textAlign = 'left';
    this.marks.forEach((mark, nth) => {
      if (!isBar(mark) || !this.visible(mark)) return;
      if (this.x(mark.v) < this.gutter - 2 || this.x(mark.u) > this.width + 2) return;
      for (const lane of mark.to == null ? [mark.lane] : [mark.lane, mark.to]) {
        const box = this.barBox(mark, lane);
        const bad = mark.tone === 'bad';
        pen.globalAlpha = this.faded(nth) ? 0.18 : mark.sort === 'question' ? 0.45 : lane === mark.lane ? 1 : 0.7;
        pen.fillStyle = bad ? ink.bad : mark.sort === 'question' ? ink.soft : this.hue(this.data.lanes[lane].role, lane === mark.lane);
        if (mark.took == null) { pen.globalAlpha *= 0.4; }
        pen.fillRect(box.x, box.y, box.w, box.h);
        if (nth === this.chosen || nth === this.hovered) { pen.globalAlpha = 1; pen.strokeStyle = ink.ink; pen.lineWidth = nth === this.chosen ? 2 : 1; pen.strokeRect(box.x - 1, box.y - 1, box.w + 2, box.h + 2); }
        // A label on a bar that is pale itself needs the colour of text.
        const pale = pen.globalAlpha < 0.6;
        if (pale) pen.globalAlpha = this.faded(nth) ? 0.4 : 1;
        if (box.w > 26) { pen.fillStyle = pale ? ink.ink : this.dark ? '#0d141a' : '#ffffff'; this.text(mark.label, Math.max(box.x, this.gutter) + 4, box.y + box.h / 2 + 0.5, box.x + box.w - Math.max(box.x, this.gutter) - 6); }
        pen.globalAlpha = 1;
      }
      if (mark.to != null && (nth === this.chosen || nth === this.hovered)) {
        const a = this.barBox(mark, mark.lane), b = this.barBox(mark, mark.to);
        pen.strokeStyle = ink.ink;
        pen.lineWidth = 1;
        pen.beginPath();
        pen.moveTo(a.x, a.y + a.h / 2);
        pen.lineTo(b.x, b.y + b.h / 2);
        pen.stroke();
      }
    });
  }

  ticks() {
    const {pen, ink} = this;
    this.marks.forEach((mark, nth) => {
      if (isBar(mark) || mark.sort === 'step' || !this.visible(mark)) return;
      const x = this.x(mark.u);
      if (x < this.gutter - 6 || x > this.width + 6) return;
      const at = this.laneAt[mark.lane];
      const y = at.y + at.height / 2;
      const on = nth === this.chosen || nth === this.hovered;
      pen.globalAlpha = this.faded(nth) ? 0.15 : 1;
      pen.fillStyle = this.tone(mark);
      if (mark.sort === 'fault') {
        pen.beginPath();
        pen.moveTo(x, y - 8); pen.lineTo(x + 7, y + 6); pen.lineTo(x - 7, y + 6);
        pen.fill();
      } else if (mark.sort === 'process') {
        const up = mark.tone === 'good' ? -1 : 1;
        pen.beginPath();
        pen.moveTo(x, y + 6 * up); pen.lineTo(x + 6, y - 5 * up); pen.lineTo(x - 6, y - 5 * up);
        pen.fill();
      } else if (mark.sort === 'event') {
        pen.beginPath();
        pen.arc(x, y, mark.tone === 'dim' ? 2.2 : 4, 0, 7);
        pen.fill();
      } else {
        if (mark.tone === 'plain') pen.fillStyle = this.hue(this.data.lanes[mark.lane].role, true);
        const tall = mark.tone === 'dim' ? 4 : 7;
        pen.fillRect(x - 1, y - tall, mark.tone === 'bad' || mark.tone === 'warn' ? 3 : 2, tall * 2);
      }
      if (on) { pen.globalAlpha = 1; pen.strokeStyle = ink.ink; pen.lineWidth = nth === this.chosen ? 2 : 1; pen.strokeRect(x - 6, y - 10, 12, 20); }
      pen.globalAlpha = 1;
    });
  }

  flagged() {
    const {pen, ink} = this;
    for (const nth of this.flags) {
      const mark = this.marks[nth];
      if (!mark) continue;
      const x = this.x(isBar(mark) && mark.took != null ? mark.v : mark.u);
      pen.fillStyle = ink.bad;
      pen.fillRect(Math.round(x) - 1, AXIS - 8, 2, this.height);
      pen.beginPath();
      pen.moveTo(x, AXIS - 10); pen.lineTo(x + 12, AXIS - 5); pen.lineTo(x, AXIS);
      pen.fill();
    }
  }

  names() {
    const {pen, ink} = this;
    pen.textAlign = 'left';
    const label = (text, style, at, bold) => {
      pen.font = `${bold ? '600 ' : ''}${this.gutter ? 12 : 11}px ${getComputedStyle(document.body).fontFamily}`;
      pen.fillStyle = style;
      if (this.gutter) this.text(text, 10, at.y + at.height / 2, this.gutter - 16); else this.text(text, 6, at.top + 8, this.width - 12);
    };
    if (this.gutter) {
      pen.fillStyle = ink.sheet;
      pen.fillRect(0, 0, this.gutter, this.height);
      this.data.lanes.forEach((_, nth) => { if (nth % 2 === 0) { pen.fillStyle = ink.lane; pen.fillRect(0, this.laneAt[nth].top, this.gutter, this.laneAt[nth].height); } });
      pen.fillStyle = ink.line;
      pen.fillRect(this.gutter - 1, 0, 1, this.height);
    }
    this.tracks.forEach(track => label(track.label, ink.soft, track));
    this.data.lanes.forEach((lane, nth) => label(lane.name, this.hue(lane.role, true), this.laneAt[nth], true));
  }

  // What is under a point: bars first, then the nearest mark.
  hit(x, y) {
    if (x < this.gutter) return -1;
    let best = -1, distance = NEAR + 1;
    this.marks.forEach((mark, nth) => {
      if (!this.visible(mark)) return;
      if (isBar(mark)) {
        for (const lane of mark.to == null ? [mark.lane] : [mark.lane, mark.to]) {
          const box = this.barBox(mark, lane);
          if (y < box.y - 2 || y > box.y + box.h + 2) continue;
          const away = x < box.x ? box.x - x : x > box.x + box.w ? x - box.x - box.w : 0;
          if (away + 0.5 < distance) { best = nth; distance = away + 0.5; }
        }
      } else {
        const at = this.laneAt[mark.lane];
        if (y < at.top || y > at.y + at.height) return;
        const away = Math.abs(this.x(mark.u) - x);
        if (away <= distance) { best = nth; distance = away; }
      }
    });
    return best;
  }

  move(units) {
    const pad = (this.to - this.from) * 0.5;
    units = clamp(units, -pad - this.from, this.scale.length + pad - this.to);
    this.from += units;
    this.to += units;
    this.draw();
  }
  zoom(factor, x) {
    const around = this.unit(x == null ? (this.gutter + this.width) / 2 : x);
    const width = this.to - this.from;
    factor = clamp(factor, 0.02 / width, this.scale.length * 1.4 / width);
    this.from = around + (this.from - around) * factor;
    this.to = around + (this.to - around) * factor;
    this.draw();
  }

  hands() {
    const {canvas} = this;
    const place = event => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };
    const fingers = new Map();
    let moved = false;
    canvas.addEventListener('wheel', event => {
      if (event.ctrlKey || event.metaKey) { event.preventDefault(); this.zoom(Math.exp(clamp(event.deltaY, -240, 240) * 0.0028), place(event)[0]); return; }
      const across = event.shiftKey ? event.deltaY || event.deltaX : Math.abs(event.deltaX) > Math.abs(event.deltaY) ? event.deltaX : 0;
      if (across) { event.preventDefault(); this.move(across * (this.to - this.from) / (this.width - this.gutter)); return; }
      this.hint.classList.add('call');
      clearTimeout(this.calling);
      this.calling = setTimeout(() => this.hint.classList.remove('call'), 1600);
    }, {passive: false});
    canvas.addEventListener('pointerdown', event => { fingers.set(event.pointerId, place(event)); moved = false; if (canvas.setPointerCapture) { try { canvas.setPointerCapture(event.pointerId); } catch { /* a made-up pointer */ } } });
    canvas.addEventListener('pointermove', event => {
      const [x, y] = place(event);
      const before = fingers.get(event.pointerId);
      if (!before) { if (event.pointerType === 'mouse') this.hover(this.hit(x, y), event); return; }
      if (Math.abs(x - before[0]) + Math.abs(y - before[1]) < 3 && !moved) return;
      moved = true;
      canvas.classList.add('drag');
      this.hover(-1);
      if (fingers.size === 2) {
        const other = [...fingers].find(([id]) => id !== event.pointerId)[1];
        const was = Math.max(20, Math.abs(before[0] - other[0])), is = Math.max(20, Math.abs(x - other[0]));
        this.zoom(was / is, (x + other[0]) / 2);
      } else {
        this.move((before[0] - x) * (this.to - this.from) / (this.width - this.gutter));
      }
      fingers.set(event.pointerId, [x, y]);
    });
    const up = event => {
      const known = fingers.delete(event.pointerId);
      canvas.classList.remove('drag');
      if (known && !moved && event.type === 'pointerup') this.choose(this.hit(...place(event)));
    };
    canvas.addEventListener('pointerup', up);
    canvas.addEventListener('pointercancel', up);
    canvas.addEventListener('pointerleave', () => this.hover(-1));
    canvas.addEventListener('dblclick', event => this.zoom(0.4, place(event)[0]));
    canvas.addEventListener('keydown', event => {
      const width = this.to - this.from;
      const act = {
        ArrowLeft: () => this.move(-width * 0.15), ArrowRight: () => this.move(width * 0.15), '+': () => this.zoom(1 / 1.5), '=': () => this.zoom(1 / 1.5), '-': () => this.zoom(1.5),
        0: () => this.fit(), n: () => this.next(1), p: () => this.next(-1), Escape: () => this.choose(-1),
      }[event.key];
      if (act && !event.ctrlKey && !event.metaKey) { event.preventDefault(); act(); }
    });
  }

  hover(nth, event) {
    if (nth !== this.hovered) { this.hovered = nth; this.canvas.style.cursor = nth < 0 ? '' : 'pointer'; this.draw(); }
    if (!this.tip) { this.tip = make('div', {class: 'tip', hidden: ''}); document.body.append(this.tip); }
    this.tip.hidden = nth < 0;
    if (nth < 0) return;
    const mark = this.marks[nth];
    this.tip.replaceChildren(make('b', {}, `${seconds(mark.at)} s  ${this.data.lanes[mark.lane].name}`), make('br'), `${mark.sign} ${mark.text}`);
    const box = this.tip.getBoundingClientRect();
    this.tip.style.left = `${clamp(event.clientX + 14, 4, innerWidth - box.width - 6)}px`;
    this.tip.style.top = `${event.clientY + box.height + 24 > innerHeight ? event.clientY - box.height - 10 : event.clientY + 16}px`;
  }

  next(step) {
    const listed = this.listed;
    if (!listed.length) return;
    const at = listed.indexOf(this.chosen);
    this.choose(listed[at < 0 ? (step > 0 ? 0 : listed.length - 1) : clamp(at + step, 0, listed.length - 1)], true);
  }

  choose(nth, reveal) {
    this.chosen = nth;
    if (nth >= 0 && reveal) {
      const mark = this.marks[nth];
      const width = this.to - this.from;
      const wide = Math.min(width, Math.max(this.scale.length / 12, (mark.v - mark.u) * 2));
      if (mark.u < this.from + width * 0.05 || mark.u > this.to - width * 0.05 || wide < width) { const half = wide / 2; this.from = mark.u - half; this.to = mark.u + half; }
    }
    const at = this.listed.indexOf(nth);
    if (at >= 0) {
      const {scrollTop, clientHeight} = this.lines;
      if (at * 20 < scrollTop || at * 20 > scrollTop + clientHeight - 40) this.lines.scrollTop = at * 20 - clientHeight / 2;
    }
    this.rows();
    this.tell();
    this.draw();
  }

  follow(value) {
    this.life = value === '' ? null : this.data.lives[+value];
    this.concern = this.life ? new Set(this.life.marks) : null;
    this.lives.value = value;
    this.chosen = -1;
    this.relist();
    this.resize();
    this.tell();
  }

  // ── the lines of the trace, of which only those in sight are in the document
  relist() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    this.listed = [];
    this.marks.forEach((mark, nth) => {
      if (!this.visible(mark)) return;
      if (this.concern && !this.concern.has(nth) && mark.sort !== 'step' && mark.sort !== 'fault') return;
      if (words.length) { const text = `${this.data.lanes[mark.lane].name} ${mark.text}`.toLowerCase(); if (!words.every(word => text.includes(word))) return; }
      this.listed.push(nth);
    });
    this.count.textContent = `${this.listed.length} of ${this.marks.length} lines`;
    this.tall.style.height = `${this.listed.length * 20}px`;
    this.lines.style.height = `${clamp(this.listed.length * 20 + 8, 220, 420)}px`;
    this.rows();
  }
  rows() {
    const from = Math.max(0, Math.floor(this.lines.scrollTop / 20) - 6);
    const to = Math.min(this.listed.length, from + Math.ceil((this.lines.clientHeight || 420) / 20) + 12);
    const rows = [];
    const wide = this.wide || (this.wide = Math.min(22, Math.max(...this.data.lanes.map(lane => lane.name.length), 6)));
    for (let i = from; i < to; i++) {
      const nth = this.listed[i], mark = this.marks[nth];
      const name = this.data.lanes[mark.lane].name;
      const row = make('div', {class: nth === this.chosen ? 'row on' : 'row', onclick: () => this.choose(nth, true)},
        make('span', {class: 't'}, seconds(mark.at).padStart(9)), '  ');
      if (mark.sort === 'step') row.append(make('span', {class: 'step'}, `── ${mark.text}`));
      else row.append(make('span', {class: 'p'}, (name.length > wide ? `${name.slice(0, wide - 1)}…` : name).padEnd(wide)), ' ', make('span', {class: mark.sort === 'fault' ? 'fault' : mark.tone}, `${mark.sign} ${mark.text}`));
      row.style.top = `${i * 20}px`;
      rows.push(row);
    }
    this.tall.replaceChildren(...rows);
  }

  // ── what is known of what was chosen
  tell() {
    const mark = this.marks[this.chosen];
    if (mark) return this.tellMark(mark);
    if (this.life) return this.tellLife(this.life);
    const calls = this.marks.filter(m => m.sort === 'call').length, writes = this.marks.filter(m => m.sort === 'write').length, faults = this.marks.filter(m => m.sort === 'fault').length;
    this.detail.replaceChildren(make('h4', {}, `${span(this.data.end)} of virtual time`),
      make('p', {}, `${calls} CSI calls, ${writes} writes, ${faults} faults, ${this.data.lives.length} objects.`),
      make('p', {class: 'dim'}, 'Bars are CSI calls: in the lane of the caller, and paler in that of the driver’s process which answers; red if they failed. Ticks are API writes, dots Kubernetes events, triangles processes that come and go, and faults. A red flag is where a promise broke.'),
      make('p', {class: 'dim'}, 'Choose something in the picture or in the lines, or an object above.'));
  }
  tellMark(mark) {
    const nav = make('span', {class: 'nav'}, make('button', {type: 'button', title: 'The event before', onclick: () => this.next(-1)}, '‹'), make('button', {type: 'button', title: 'The next event', onclick: () => this.next(1)}, '›'));
    const parts = [nav, make('h4', {}, mark.label), make('p', {class: 'dim'}, `${this.data.lanes[mark.lane].name}${mark.to == null ? '' : ` → ${this.data.lanes[mark.to].name}`} · at ${seconds(mark.at)} s${mark.took != null ? ` · took ${span(mark.took)}` : isBar(mark) ? ' · no answer came' : ''}`), make('p', {}, `${mark.sign} ${mark.text}`)];
    for (const [name, value] of Object.entries(mark.detail || {})) {
      if (value && typeof value === 'object') parts.push(make('details', {open: ''}, make('summary', {}, name), make('pre', {}, JSON.stringify(value, null, 1))));
      else parts.push(make('p', {}, make('span', {class: 'dim'}, `${name} `), make('code', {}, String(value))));
    }
    const about = this.data.lives.map((life, nth) => ({life, nth})).filter(({life}) => mark.text.includes(life.name) && life.marks.includes(this.chosen)).slice(0, 4);
    if (about.length) parts.push(make('p', {}, make('span', {class: 'dim'}, 'follow '), ...about.map(({life, nth}) => make('button', {type: 'button', onclick: () => this.follow(String(nth))}, life.name))));
    this.detail.replaceChildren(...parts);
  }
  tellLife(life) {
    const table = make('table', {class: 'tracks'});
    for (const [label, points] of life.tracks) points.forEach(([t, value], nth) => table.append(make('tr', {}, make('td', {}, nth ? '' : label), make('td', {class: 'number'}, seconds(t)), make('td', {}, value === '' ? '—' : value))));
    this.detail.replaceChildren(make('h4', {}, life.name), make('p', {class: 'dim'}, `${life.marks.length} events concern it${life.gone != null ? `; gone at ${seconds(life.gone)} s` : '; there to the end'}. Its history is at the top of the picture.`), table);
  }
}

// ── the page checks itself: open it with #selfcheck, and the result stands in the document
// Of the pictures, these many are played with; all must have a place for every mark.
const CHECKED = 6;
const selfcheck = () => {
  const wrong = [];
  const must = (so, what) => { if (!so) wrong.push(what); };
  try {
    must(rows.length === entries.length && entries.length > 0, 'a row for each run');
    filter.value = 'there is no such run';
    must(sift() === 0 && !$('#none').hidden || rows.length === 0, 'the filter takes rows out');
    filter.value = '';
    must(sift() === rows.length, 'an empty filter shows all');
    for (const head of $$('#runs th')) head.click();
    must($$('#runs tbody tr').length === rows.length, 'sorting keeps every row');
    const took = performance.now();
    let pictures = 0, marks = 0;
    for (const entry of entries) {
      location.hash = entry.id;
      open();
      must(!entry.hidden && entries.filter(e => !e.hidden).length === 1, `${entry.id} is shown alone`);
      must(root.scrollWidth <= root.clientWidth, `${entry.id} is as wide as the window, not ${root.scrollWidth}`);
      for (const {stage} of $$('.stage', entry)) {
        pictures += 1;
        marks += stage.marks.length;
        must(stage.marks.every(m => Number.isFinite(m.u) && m.v >= m.u), `${entry.id}: every mark has a place`);
        if (pictures > CHECKED) continue;
        stage.paint();
        const {data} = stage.pen.getImageData(0, 0, stage.canvas.width, stage.canvas.height);
        let inked = 0;
        for (let i = 3; i < data.length; i += 4 * 97) inked += data[i] > 0;
        must(inked > 20, `${entry.id} is drawn`);
        const [from, to] = [stage.from, stage.to];
        stage.canvas.dispatchEvent(new WheelEvent('wheel', {deltaY: -200, ctrlKey: true, clientX: stage.canvas.getBoundingClientRect().left + stage.width / 2, cancelable: true}));
        must(stage.to - stage.from < to - from, 'the wheel zooms');
        const left = stage.from;
        stage.canvas.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight'}));
        must(stage.from > left, 'keys move');
        const pointer = (type, id, x) => stage.canvas.dispatchEvent(new PointerEvent(type, {pointerId: id, pointerType: 'touch', clientX: x, clientY: stage.canvas.getBoundingClientRect().top + 40}));
        const before = stage.from;
        pointer('pointerdown', 7, 300); pointer('pointermove', 7, 240); pointer('pointerup', 7, 240);
        must(stage.from > before, 'a finger moves');
        const wide = stage.to - stage.from;
        pointer('pointerdown', 7, 200); pointer('pointerdown', 8, 260); pointer('pointermove', 8, 340); pointer('pointerup', 8, 340); pointer('pointerup', 7, 200);
        must(stage.to - stage.from < wide, 'two fingers zoom');
        stage.fit();
        for (const nth of [0, stage.marks.length - 1]) {
          stage.choose(nth, true);
          must(stage.detail.textContent.includes(stage.marks[nth].label), 'details are told');
        }
        const life = stage.data.lives.findIndex(l => l.tracks.length > 0);
        if (life >= 0) { stage.follow(String(life)); must(stage.tracks.length > 0 && stage.detail.textContent.includes(stage.data.lives[life].name), 'an object has a history'); stage.follow(''); }
        stage.choose(-1);
      }
    }
    themed('dark'); const dark = getComputedStyle(document.body).backgroundColor;
    themed('light'); const light = getComputedStyle(document.body).backgroundColor;
    must(dark !== light, 'dark is not light');
    themed('auto');
    must($$('script').every(script => script.type === 'application/json' || script === $$('script').pop()), 'no script but ours');
    must(!window.hostile, 'nothing from outside ran');
    return {ok: wrong.length === 0, wrong, runs: entries.length, pictures, marks, ms: Math.round(performance.now() - took)};
  } catch (error) {
    return {ok: false, wrong: [...wrong, String(error && error.stack || error)]};
  }
};

if (location.hash === '#selfcheck') document.body.append(make('pre', {id: 'selfcheck'}, JSON.stringify(selfcheck())));
else {
  if (rows.length > 1) { $('#runs th').click(); }
  open();
  // For pictures of a part: #run-0/follow=pvc data
  const [, follow] = decodeURIComponent(location.hash).split('/follow=');
  if (follow) {
    const stage = stages[0];
    const nth = stage ? stage.data.lives.findIndex(life => life.name === follow) : -1;
    if (nth >= 0) stage.follow(String(nth));
  }
}
})();
