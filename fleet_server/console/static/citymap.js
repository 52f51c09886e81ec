// Draws a city: counties shaded, sites as shapes, close ones gathered. One chart for the life of a page, changed in place; no animation, so that
// a screen on a wall has nothing to pile up. Used by the map and by the wallboard.
"use strict";
(() => {
  const MAX_ZOOM = 32;
  // 16 x 16, as in the sprite of the pages. `line`: drawn with a stroke instead of filled.
  const SHAPES = {
    normal: { path: "circle" },
    partial: { path: "path://M8 2A6 6 0 1 0 8 14A6 6 0 1 0 8 2ZM8 3.7A4.3 4.3 0 0 1 8 12.300Z" },
    unusable: { path: "path://M8 1.6L15 14H1Z" },
    suspect: { path: "path://M6.500 2.600A5.400 5.400 0 0 1 6.500 13.400V10.700A2.700 2.700 0 0 0 6.500 5.300Z" },
    offline: { path: "rect" },
    closed: { path: "path://M12.9 10.6A6 6 0 0 1 5.400 3.100a6 6 0 1 0 7.500 7.500z" },
    unknown: { path: "path://M5.200 6.100a2.900 2.900 0 1 1 4.300 2.500c-1 .6-1.500 1-1.500 2M8 13.200v.3", line: true },
    maintenance: { path: "path://M14.300 4.600 12 6.900 9.400 6.600 9.100 4l2.300-2.300a4 4 0 0 0-5 5.200L1.700 11.600a1.900 1.900 0 1 0 2.700 2.700l4.700-4.700a4 4 0 0 0 5.200-5z" },
    notEnrolled: { path: "path://M8 2.400a5.600 5.600 0 0 1 4.800 2.800M13.500 7.200a5.600 5.600 0 0 1-1.800 5M9.500 13.400a5.600 5.600 0 0 1-5.400-1.400M2.500 9a5.600 5.600 0 0 1 1-4.300M5 3.300a5.600 5.600 0 0 1 1.400-.7", line: true },
  };
  const WORST = ["unusable", "offline", "partial", "suspect", "unknown", "maintenance", "closed", "notEnrolled", "normal"];
  const SPOKEN = new Set(["unusable", "offline", "partial", "suspect"]);
  const { fill } = ages;

  // `host`: the element to draw in. `outline`: GeoJSON. Options: words of no feed, `onOpen(address)`, `onPick(text)`, `scale` of everything drawn.
  function create(host, outline, options = {}) {
    const scale = options.scale || 1;
    const still = Boolean(options.still);
    const name = "city";
    echarts.registerMap(name, outline);
    let chart = echarts.init(host, null, { renderer: "svg", useDirtyRect: false });
    let feed = { areas: [], sites: [], words: { cluster: "{n}", states: {} } };
    let groups = [];
    let zoom = 1;
    let center = null;
    let picked = -1;
    let drawnRegions = "";
    let drawnMarks = "";
    let areaByKey = new Map();

    const look = getComputedStyle(host);
    const colour = (token) => look.getPropertyValue(`--${token}`).trim();
    const radius = () => 26 * scale;

    function base() {
      const text = colour("text");
      return {
        animation: false,
        textStyle: { fontFamily: look.fontFamily },
        tooltip: {
          show: !still, trigger: "item", renderMode: "richText", confine: true, transitionDuration: 0, triggerOn: "mousemove|click",
          backgroundColor: colour("card"), borderColor: colour("line-strong"), borderWidth: 1, padding: [8, 12],
          textStyle: { color: text, fontSize: 13, lineHeight: 20 },
          formatter: (item) => tipOf(item),
        },
        geo: {
          map: name, roam: options.roam || false, selectedMode: false, silent: still, aspectScale: outline.squeeze || 0.85,
          left: 8 * scale, right: 8 * scale, top: 8 * scale, bottom: 8 * scale,
          scaleLimit: { min: 1, max: MAX_ZOOM }, tooltip: { show: !still },
          itemStyle: { areaColor: colour("shade-none"), borderColor: colour("border"), borderWidth: 1.2 * scale },
          label: { show: false },
          emphasis: { itemStyle: { areaColor: null, borderColor: text, borderWidth: 2 * scale }, label: { show: false } },
          regions: [],
        },
        series: [
          { id: "names", type: "scatter", coordinateSystem: "geo", data: [], symbolSize: 0.1, z: 7, silent: true, itemStyle: { opacity: 1 }, emphasis: { disabled: true }, tooltip: { show: false },
            label: { show: true, position: "inside", align: "center", verticalAlign: "middle", color: text, fontSize: 12 * scale, lineHeight: 16 * scale, fontWeight: 600, textBorderColor: colour("halo"), textBorderWidth: 3 * scale,
              formatter: (item) => item.data.text } },
          { id: "plates", type: "scatter", coordinateSystem: "geo", data: [], zlevel: 0, z: 5, silent: still, cursor: "pointer", emphasis: { scale: 1.15 } },
          { id: "marks", type: "scatter", coordinateSystem: "geo", data: [], zlevel: 0, z: 6, silent: true, emphasis: { disabled: true }, labelLayout: { hideOverlap: true }, tooltip: { show: false } },
        ],
      };
    }

    const tipOf = (item) => {
      if (item.componentType === "geo") { const area = areaByKey.get(item.name); return area ? area.tip : ""; }
      const group = groups[item.dataIndex];
      return group ? tipOfGroup(group) : "";
    };
    const tipOfGroup = (group) => group.members.length === 1
      ? group.members[0].tip
      : [fill(feed.words.cluster, { sites: group.members.length, n: group.n }), ...group.members.slice(0, 6).map((site) => site.name)].join("\n") + (group.members.length > 6 ? "\n…" : "");

    function regions() {
      return feed.areas.map((area) => {
        const empty = area.shade < 0;
        return {
          name: area.key,
          itemStyle: {
            areaColor: colour(empty ? "shade-none" : `shade-${area.shade}`),
            ...(empty ? { decal: { symbol: "rect", dashArrayX: [1, 0], dashArrayY: [1.5, 5], rotation: Math.PI / 4, color: colour("hatch") } } : {}),
          },
          emphasis: { itemStyle: { areaColor: colour(empty ? "shade-none" : `shade-${area.shade}`) } },
        };
      });
    }

    // Sites that would cover one another become one mark: the worst state among them, with how many machines are in it.
    function gather() {
      const near = radius() ** 2;
      const made = [];
      const sites = [...feed.sites].reverse(); // worst first: the worst site gives a group its place
      for (const site of sites) {
        const point = chart.convertToPixel("geo", site.at);
        if (!point || Number.isNaN(point[0])) continue;
        const group = made.find((one) => (one.x - point[0]) ** 2 + (one.y - point[1]) ** 2 < near);
        if (group) {
          group.members.push(site);
          group.n += site.n;
          if (site.look === group.look) group.worst += site.worst;
          continue;
        }
        made.push({ x: point[0], y: point[1], at: site.at, look: site.look, n: site.n, worst: site.worst, members: [site], shift: [0, 0] });
      }
      if (zoom < MAX_ZOOM * 0.9) return made;
      // As near as it goes: what still lies together is laid out around its place.
      return made.flatMap((group) => group.members.map((site, index, all) => {
        const far = all.length === 1 ? 0 : radius() * (0.9 + all.length / 12);
        const turn = (index / all.length) * 2 * Math.PI;
        return { at: group.at, look: site.look, n: site.n, worst: site.worst, members: [site], shift: [Math.cos(turn) * far, Math.sin(turn) * far] };
      }));
    }

    // A county's name stands where it has room and covers no mark; it stays there until somewhere else is clearly better.
    const named = new Map();
    function names() {
      const taken = groups.map((group) => {
        const [x, y] = chart.convertToPixel("geo", group.at);
        const wide = group.members.length > 1 || SPOKEN.has(group.look) ? 16 * scale : 0;
        return [x + group.shift[0] + wide / 2, y + group.shift[1], wide / 2, group.look === "normal" ? 1 : 0.6]; // rather over what is well
      });
      const degree = Math.abs(chart.convertToPixel("geo", [outline.features[0].properties.rooms[0]?.[0] || 0, 1])[1] - chart.convertToPixel("geo", [outline.features[0].properties.rooms[0]?.[0] || 0, 0])[1]);
      const width = chart.getWidth();
      const height = chart.getHeight();
      return outline.features.flatMap((feature) => {
        const { name: county, label, rooms } = feature.properties;
        const seen = rooms.map((room) => {
          const [x, y] = chart.convertToPixel("geo", room);
          if (x < 40 || y < 20 || x > width - 40 || y > height - 20) return { room, score: -1 };
          const clear = Math.min(room[2] * degree, 42 * scale);
          const away = taken.reduce((least, [mx, my, half, weight]) => Math.min(least, Math.hypot(Math.max(0, Math.abs(mx - x) - half) * 0.7, (my - y) * 1.25) * weight), 56 * scale);
          return { room, score: clear + away * 1.6 };
        });
        const best = seen.reduce((one, other) => (other.score > one.score ? other : one), { score: -1 });
        if (best.score < 0) return [];
        const before = seen.find((one) => one.room === named.get(county));
        const chosen = before && before.score > best.score * 0.85 ? before : best;
        named.set(county, chosen.room);
        const area = areaByKey.get(county);
        return [{ name: county, value: [chosen.room[0], chosen.room[1]], text: area ? area.label : label }];
      });
    }

    // What is well stays small, so that the eye finds what is not.
    const sizeOf = (group) => {
      const calm = group.look === "normal" ? 0.72 : 1;
      return Math.round((group.members.length > 1 ? 23 : 15 + Math.min(8, Math.sqrt(group.n) * 2)) * calm * scale);
    };

    function marks() {
      groups = gather();
      groups.sort((a, b) => WORST.indexOf(a.look) - WORST.indexOf(b.look) || b.n - a.n);
      const plates = [];
      const shapes = [];
      groups.forEach((group, index) => {
        const size = sizeOf(group);
        const bar = colour(`${group.look}-bar`);
        const z = groups.length - index;
        const shape = SHAPES[group.look];
        const many = group.members.length > 1;
        plates.push({ name: String(index), value: group.at, symbol: "circle", symbolSize: size, symbolOffset: group.shift, z2: z,
          itemStyle: { color: colour("card"), borderColor: bar, borderWidth: (many ? 2.2 : 1.4) * scale, opacity: 1 } });
        shapes.push({ name: String(index), value: group.at, symbol: shape.path, symbolSize: Math.round(size * (group.look === "unusable" ? 0.62 : 0.56)), symbolOffset: group.shift, z2: z,
          itemStyle: shape.line ? { color: "transparent", borderColor: bar, borderWidth: 1.8 * scale, opacity: 1 } : { color: bar, opacity: 1 },
          label: { show: many || SPOKEN.has(group.look), position: "right", distance: size / 3 + 3, fontSize: 11 * scale, fontWeight: 700,
            color: colour(group.look === "offline" || group.look === "normal" ? "text" : group.look), textBorderColor: colour("halo"), textBorderWidth: 3 * scale,
            formatter: many ? String(group.worst) : (feed.words.states[group.look] || "") } });
      });
      return [{ id: "names", data: names() }, { id: "plates", data: plates }, { id: "marks", data: shapes }];
    }

    function redraw(force) {
      if (!chart) return;
      areaByKey = new Map(feed.areas.map((area) => [area.key, area]));
      const areas = regions();
      const said = JSON.stringify(areas);
      if (force || said !== drawnRegions) {
        drawnRegions = said;
        chart.setOption({ geo: { regions: areas } });
      }
      const series = marks();
      const drawn = JSON.stringify(series);
      if (force || drawn !== drawnMarks) {
        drawnMarks = drawn;
        chart.setOption({ series });
      }
    }

    function start() {
      chart.setOption(base());
      drawnRegions = drawnMarks = "";
      if (zoom > 1) chart.setOption({ geo: { zoom, center } });
      redraw(true);
    }

    function goTo(newZoom, newCenter) {
      zoom = Math.max(1, Math.min(MAX_ZOOM, newZoom));
      center = zoom === 1 ? null : newCenter || center || middle();
      chart.setOption({ geo: { zoom, center } });
      redraw(false);
    }
    const middle = () => chart.convertFromPixel("geo", [chart.getWidth() / 2, chart.getHeight() / 2]);

    function open(index) {
      const group = groups[index];
      if (!group) return;
      if (group.members.length > 1) { picked = -1; goTo(zoom * 2.5, group.at); return; }
      if (options.onOpen) options.onOpen(group.members[0].href);
    }

    // Keyboard: sites first, worst first, then counties.
    function step(by) {
      const length = groups.length + feed.areas.length;
      if (!length) return;
      picked = picked < 0 ? (by > 0 ? 0 : length - 1) : (picked + by + length) % length;
      show();
    }
    function show() {
      chart.dispatchAction({ type: "downplay", seriesId: "plates" });
      const group = groups[picked];
      const area = group ? null : feed.areas[picked - groups.length];
      if (group) {
        chart.dispatchAction({ type: "highlight", seriesId: "plates", dataIndex: picked });
        chart.dispatchAction({ type: "showTip", seriesIndex: 1, dataIndex: picked });
      } else if (area) {
        chart.dispatchAction({ type: "highlight", geoIndex: 0, name: area.key });
        chart.dispatchAction({ type: "showTip", geoIndex: 0, name: area.key });
      }
      if (options.onPick) options.onPick(group ? tipOfGroup(group) : area ? area.tip : "");
    }
    function key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
      if (steps[event.key]) step(steps[event.key]);
      else if (event.key === "Enter" && picked >= 0) {
        if (picked < groups.length) open(picked);
        else if (options.onOpen) options.onOpen(feed.areas[picked - groups.length].href);
      } else if (event.key === "+" || event.key === "=") goTo(zoom * 1.6);
      else if (event.key === "-") goTo(zoom / 1.6);
      else if (event.key === "0" || event.key === "Escape") { picked = -1; chart.dispatchAction({ type: "hideTip" }); goTo(1); }
      else return;
      event.preventDefault();
      event.stopPropagation();
    }

    chart.on("click", (item) => {
      if (item.componentType === "geo") { const area = areaByKey.get(item.name); if (area && options.onOpen) options.onOpen(area.href); return; }
      open(item.dataIndex);
    });
    let roaming = 0;
    chart.on("georoam", () => {
      cancelAnimationFrame(roaming);
      roaming = requestAnimationFrame(() => {
        const geo = chart.getOption().geo[0];
        zoom = geo.zoom || 1;
        center = geo.center || null;
        redraw(false);
      });
    });
    if (!still) host.addEventListener("keydown", key);
    const watch = new ResizeObserver(() => {
      if (!chart || !host.clientWidth || (host.clientWidth === chart.getWidth() && host.clientHeight === chart.getHeight())) return;
      chart.resize();
      redraw(true);
    });
    watch.observe(host);
    const dark = window.matchMedia("(prefers-color-scheme: dark)");
    const repaint = () => start();
    dark.addEventListener("change", repaint);
    start();

    return {
      update(next) { feed = next; picked = Math.min(picked, next.sites.length + next.areas.length - 1); redraw(false); },
      nearer: () => goTo(zoom * 1.6),
      farther: () => goTo(zoom / 1.6),
      whole: () => goTo(1),
      get groups() { return groups.map((group) => ({ look: group.look, n: group.n, sites: group.members.length, x: chart.convertToPixel("geo", group.at)[0] + group.shift[0], y: chart.convertToPixel("geo", group.at)[1] + group.shift[1] })); },
      dispose() {
        watch.disconnect();
        dark.removeEventListener("change", repaint);
        host.removeEventListener("keydown", key);
        cancelAnimationFrame(roaming);
        chart.dispose();
        chart = null;
      },
    };
  }

  window.kfCityMap = { create };
})();
