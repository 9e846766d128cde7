import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { MbridgeError } from '../base/errors.js';
import { compiledFile } from '../base/package-root.js';
import type { WholeRun } from './view/run-view.js';

/** The page's own script or style sheet, as the build has made it. */
export function pageFile(name: 'page.js' | 'page.css'): string {
  const path = compiledFile(`trace/page/${name}`);
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new MbridgeError('environment', 'MB_NOT_BUILT', `${path} is missing`, {
      hint: 'build the package first: npm run build',
      cause,
    });
  }
}

/** The page that asks its server for all else. */
export function livePage(): string {
  return html('<link rel="stylesheet" href="page.css">', '<script src="page.js"></script>');
}

/** One file with all that is in it: nothing is loaded, and nothing runs but the page's own script. */
export function wholePage(runs: readonly WholeRun[]): string {
  const [script, style] = [pageFile('page.js'), pageFile('page.css')];
  if (/<\/script|<!--/i.test(script) || /<\/style/i.test(style)) throw new Error('the page cannot stand in a page');
  const policy = `default-src 'none'; script-src '${hashOf(script)}'; style-src '${hashOf(style)}'; base-uri 'none'; form-action 'none'`;
  const head = `<meta http-equiv="Content-Security-Policy" content="${policy}"><style>${style}</style>`;
  const data = `<script type="application/json" id="report">${jsonInHtml(runs)}</script>`;
  return html(head, `${data}<script>${script}</script>`);
}

/** JSON that no text in it can end early: a script's content ends at `</script`, and `<!--` changes where. */
function jsonInHtml(value: unknown): string {
  return JSON.stringify(value).replaceAll('<', '\\u003c');
}

function hashOf(text: string): string {
  return `sha256-${createHash('sha256').update(text).digest('base64')}`;
}

function html(head: string, scripts: string): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>mbridge</title>
${head}
</head>
<body>
<header>
<h1>mbridge</h1>
<span id="connection" role="status">not connected</span>
<div class="controls">
<label>over <select id="axis"></select></label>
<label>smoothing <input id="smoothing" type="range" min="0" max="0.99" step="0.01" value="0.6"> <span id="smoothing-value"></span></label>
<label><input id="log" type="checkbox"> log scale</label>
</div>
</header>
<main>
<section class="card" aria-label="runs"><ul id="runs"></ul><p id="empty">No run yet. One that starts appears here.</p></section>
<section class="card" id="warnings" hidden><h2>Warnings</h2><div class="content"></div></section>
<div id="charts"></div>
<section class="card" id="ranks" hidden><h2>Ranks <span class="note">own work of each, without waiting for others; warmer is slower than the median</span></h2><div class="content"></div></section>
<section class="card" id="samples" hidden><h2>Samples</h2><div class="content samples"></div></section>
<details class="card" id="config" hidden><summary>Configuration</summary>
<div class="filters"><input id="search" type="search" placeholder="find a key" aria-label="find a key"><label><input id="different" type="checkbox" checked> only what differs</label></div>
<div class="content"></div></details>
<details class="card" id="environment" hidden><summary>Environment</summary><div class="content"></div></details>
</main>
<footer>Drag over a chart to zoom, double-click to see all. Charts take the keyboard: arrows move the pointer, Escape shows all.</footer>
${scripts}
</body>
</html>
`;
}
