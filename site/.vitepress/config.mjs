// The documentation as a site: the pages of docs/ by task, and the API reference that typedoc writes. `npm run site`.
import { readdirSync } from 'node:fs';
import { defineConfig } from 'vitepress';

const DOCS = new URL('../../docs/', import.meta.url);

/** Sections of the side bar, in the order of a reader's days; a page of docs/ that none of them names fails the build. */
const SECTIONS = {
  'Getting started': { 'first-run': 'First run', install: 'Installing', 'own-text': 'From your own text to a model' },
  Training: {
    data: 'Your own data',
    layouts: 'Layouts',
    finetuning: 'Fine-tuning',
    watching: 'Watching a run',
    resuming: 'Resuming',
    checkpoints: 'Checkpoints',
    evaluation: 'Evaluation',
    generation: 'Generation',
  },
  Machines: { gpu: 'GPUs', launching: 'Launching', 'several-nodes': 'Several nodes', hangs: 'Runs that hang' },
  Programs: { library: 'The library', 'reinforcement-learning': 'Reinforcement learning and several models' },
  Reference: {
    configuration: 'Configuration',
    'machine-interface': 'For programs: JSON, events, completion',
    errors: 'Troubleshooting: errors',
    numerics: 'Numerics',
    performance: 'Performance',
  },
  'How it is built': { architecture: 'Architecture', walk: 'A walk through the code', 'adr/README': 'Decisions' },
};

const listed = Object.values(SECTIONS).flatMap((pages) => Object.keys(pages));
const there = readdirSync(DOCS)
  .filter((name) => name.endsWith('.md'))
  .map((name) => name.slice(0, -3));
const lost = [
  ...there.filter((page) => !listed.includes(page)).map((page) => `docs/${page}.md is in no section`),
  ...listed.filter((page) => !page.includes('/') && !there.includes(page)).map((page) => `docs/${page}.md is missing`),
];
if (lost.length > 0) throw new Error(`site/.vitepress/config.mjs: ${lost.join('; ')}`);

export default defineConfig({
  title: 'mbridge',
  description: 'Train language models across many GPUs from one command, in TypeScript',
  srcDir: 'pages',
  outDir: 'dist',
  cleanUrls: true,
  rewrites: { 'first-run.md': 'index.md' },
  // Pages name files of the repository, which the site does not have.
  ignoreDeadLinks: [/^\.\.?\/(\.\.\/)?(README|CONTRIBUTING|examples|src|fixtures|native|test)/],
  markdown: {
    // `<recipe>` in a page is text.
    html: false,
    config: (md) => {
      md.core.ruler.before('normalize', 'comments', (state) => {
        state.src = state.src.replace(/<!--[^]*?-->/g, '');
      });
    },
  },
  // `pages` is a link to docs/, so that what a page imports is looked for beside it.
  vite: { resolve: { preserveSymlinks: true } },
  themeConfig: {
    search: { provider: 'local' },
    outline: [2, 3],
    nav: [
      { text: 'Guide', link: '/' },
      { text: 'Configuration', link: '/configuration' },
      { text: 'Errors', link: '/errors' },
      { text: 'API', link: '/api/index.html', target: '_self' },
    ],
    sidebar: Object.entries(SECTIONS).map(([text, pages]) => ({
      text,
      items: Object.entries(pages).map(([page, title]) => ({
        text: title,
        link: page === 'first-run' ? '/' : `/${page}`,
      })),
    })),
  },
});
