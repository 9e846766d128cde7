// node scripts/page.mjs: makes the page of `mbridge dash` and `mbridge report` of src/trace/page: one script with uPlot and its
// licence in it, and one style sheet, in dist/src/trace/page/. Its types are checked by `npm run typecheck`.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { rolldown } from 'rolldown';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const source = join(root, 'src', 'trace', 'page');
const target = join(root, 'dist', 'src', 'trace', 'page');
const uplot = dirname(createRequire(import.meta.url).resolve('uplot/package.json'));

const licence = `/*! uPlot, https://github.com/leeoniya/uPlot\n${readFileSync(join(uplot, 'LICENSE'), 'utf8').trim()}\n*/\n`;
const bundle = await rolldown({ input: join(source, 'main.ts'), platform: 'browser' });
const { output } = await bundle.generate({ format: 'iife', minify: true, comments: false });
await bundle.close();
const style = [join(uplot, 'dist', 'uPlot.min.css'), join(source, 'page.css')];

mkdirSync(target, { recursive: true });
writeFileSync(join(target, 'page.js'), `${licence}${output[0].code}`);
writeFileSync(join(target, 'page.css'), `${licence}${style.map((file) => readFileSync(file, 'utf8')).join('\n')}`);
