// How long, in the words of a page: for pages that count on while they are open, the console's and a wall's.
"use strict";
const ages = {
  /** `text` with its {names} filled in. */
  fill: (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]),

  /** A length of `ms` in the two units that say it best. */
  duration(words, ms) {
    const s = Math.floor(Math.max(0, ms) / 1000);
    const m = Math.floor(s / 60);
    const h = Math.floor(m / 60);
    if (s < 60) return ages.fill(words.seconds, { n: s });
    if (m < 60) return ages.fill(words.minutes, { n: m });
    if (h < 24) return ages.fill(words.hours, { h, m: m % 60 });
    return ages.fill(words.days, { d: Math.floor(h / 24), h: h % 24 });
  },
};
