import { existsSync } from 'node:fs';
import { chromium, type Browser, type Page } from 'playwright-core';

const PROGRAM = '/usr/bin/chromium';

/** Whether pages can be looked at here. */
export const HAS_BROWSER = existsSync(PROGRAM);

export function openBrowser(): Promise<Browser> {
  const args = [
    ...['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking'],
    ...['--disable-component-update', '--disable-sync'],
  ];
  return chromium.launch({ executablePath: PROGRAM, headless: true, args });
}

/** A page, and what went wrong in it. */
export async function openPage(browser: Browser, url: string): Promise<{ page: Page; problems: string[] }> {
  const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  const problems: string[] = [];
  page.on('pageerror', (error) => problems.push(error.message));
  page.on('console', (message) => {
    if (message.type() === 'error') problems.push(message.text());
  });
  // Nothing but what the page is of.
  page.on('request', (request) => {
    if (new URL(request.url()).host !== new URL(url).host) problems.push(`asks for ${request.url()}`);
  });
  await page.goto(url);
  return { page, problems };
}

/** Pixels of a canvas that are of about this color. */
export function pixelsOf(page: Page, canvas: string, color: string): Promise<number> {
  return page.locator(canvas).evaluate(
    (element: unknown, [r, g, b]) => {
      interface Canvas {
        width: number;
        height: number;
        getContext(kind: '2d'): { getImageData(...area: number[]): { data: Uint8ClampedArray } };
      }
      const { width, height, ...rest } = element as Canvas;
      void rest;
      const { data } = (element as Canvas).getContext('2d').getImageData(0, 0, width, height);
      let count = 0;
      for (let i = 0; i < data.length; i += 4) {
        const off = Math.abs(data[i]! - r!) + Math.abs(data[i + 1]! - g!) + Math.abs(data[i + 2]! - b!);
        if (data[i + 3]! > 200 && off < 24) count++;
      }
      return count;
    },
    color.match(/[0-9a-f]{2}/g)!.map((hex) => parseInt(hex, 16)),
  );
}
