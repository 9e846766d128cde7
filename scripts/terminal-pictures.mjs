// Records README's first command in a terminal (tmux) of 80 and of 120 columns, and draws what it shows:
// docs/images/terminal-80.svg and terminal-120.svg. Needs tmux and a built checkout.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const COMMAND = 'npx mbridge pretrain qwen3-tiny --nproc 2 --tp-size 2';
const [CHAR, LINE, MARGIN] = [7.83, 17, 16];
/** Lines that are drawn of the beginning and of the end. */
const KEPT = 24;
const COLOURS = ['#24292f', '#cf222e', '#116329', '#9a6700', '#0969da', '#8250df', '#1b7c83', '#6e7781'];

/** The lines, with their escape sequences, that a terminal of a width has shown when the command is done. */
async function record(columns) {
  const folder = mkdtempSync(join(tmpdir(), 'mbridge-terminal-'));
  // As where the package is installed.
  mkdirSync(join(folder, 'node_modules', '.bin'), { recursive: true });
  symlinkSync(root, join(folder, 'node_modules', 'mbridge'));
  symlinkSync('../mbridge/bin/mbridge.js', join(folder, 'node_modules', '.bin', 'mbridge'));
  writeFileSync(join(folder, 'rc'), "PS1='$ '\nclear\n");
  const tmux = (...args) =>
    execFileSync('tmux', ['-L', `mbridge-${columns}`, ...args], { encoding: 'utf8', cwd: folder });
  const size = ['-x', String(columns), '-y', '50'];
  tmux('new-session', '-d', ...size, 'env', '-u', 'NO_COLOR', '-u', 'CI', 'bash', '--rcfile', join(folder, 'rc'));
  try {
    await wait(1000);
    tmux('send-keys', COMMAND, 'Enter');
    for (;;) {
      await wait(500);
      const lines = tmux('capture-pane', '-p', '-e', '-S', '-').trimEnd().split('\n');
      // The prompt is back.
      if (lines.length > 1 && lines.at(-1).replace(SEQUENCE, '').trim() === '$') return lines.slice(0, -1);
    }
  } finally {
    tmux('kill-server');
    rmSync(folder, { recursive: true, force: true });
  }
}

const ESCAPE = String.fromCharCode(27);
const SEQUENCE = new RegExp(`${ESCAPE}\\[[\\d;]*m`, 'g');
const escaped = (text) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');

/** A line as pieces of text, each where its first column is. */
function spans(line) {
  let [column, bold, dim, colour] = [0, false, false, null];
  return line.split(new RegExp(`(${SEQUENCE.source})`)).map((part) => {
    const codes = part.startsWith(`${ESCAPE}[`) ? part.slice(2, -1) : undefined;
    if (codes !== undefined) {
      for (const code of codes.split(';').map(Number)) {
        if (code === 0) [bold, dim, colour] = [false, false, null];
        else if (code === 1) bold = true;
        else if (code === 2) dim = true;
        else if (code === 22) [bold, dim] = [false, false];
        else if (code === 39) colour = null;
        else if (code >= 30 && code <= 37) colour = COLOURS[code - 30];
        else if (code >= 90 && code <= 97) colour = COLOURS[code - 90];
      }
      return '';
    }
    if (part.trim() === '') {
      column += part.length;
      return '';
    }
    const style = `${bold ? ' font-weight="bold"' : ''}${dim ? ' fill="#6e7781"' : colour === null ? '' : ` fill="${colour}"`}`;
    const x = (MARGIN + column * CHAR).toFixed(1);
    const width = (part.length * CHAR).toFixed(1);
    column += part.length;
    return `<tspan x="${x}" textLength="${width}"${style}>${escaped(part)}</tspan>`;
  });
}

function draw(columns, all) {
  const lines =
    all.length <= 2 * KEPT + 1 ? all : [...all.slice(0, KEPT), `${ESCAPE}[2m  ...${ESCAPE}[0m`, ...all.slice(-KEPT)];
  const [width, height] = [Math.ceil(columns * CHAR + 2 * MARGIN), lines.length * LINE + 2 * MARGIN];
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" font-family="ui-monospace, 'DejaVu Sans Mono', monospace" font-size="13">`,
    `<title>${escaped(COMMAND)} in a terminal of ${columns} columns</title>`,
    `<rect width="${width}" height="${height}" rx="8" fill="#f6f8fa" stroke="#d0d7de"/>`,
    ...lines.map((line, i) => {
      const y = MARGIN + (i + 0.75) * LINE;
      return `<text y="${y}" fill="#24292f" xml:space="preserve">${spans(line).join('')}</text>`;
    }),
    '</svg>\n',
  ].join('\n');
}

for (const columns of [80, 120]) {
  const lines = await record(columns);
  writeFileSync(join(root, 'docs', 'images', `terminal-${columns}.svg`), draw(columns, lines));
  console.log(
    `terminal-${columns}.svg: ${lines.length} lines, the longest of ${Math.max(...lines.map((line) => line.replace(SEQUENCE, '').length))} columns`,
  );
}
