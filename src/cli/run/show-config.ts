import type { Command } from 'commander';
import type { Origin } from '../../config/resolve.js';
import { outputLine } from '../../outputs/line.js';
import { addRunOptions, resolveRequest, type RunOptions, type RunRequest } from '../shared/run-options.js';

/** `mbridge show-config`: the resolved configuration, as YAML that can be run or as JSON. */
export function addShowConfig(program: Command): void {
  addRunOptions(program.command('show-config'))
    .description('print the resolved configuration of a run')
    .option('--explain', 'say where each value comes from')
    .action(async (args: string[], options: RunOptions & { explain?: boolean }) => {
      const request = await resolveRequest(args, options);
      if (options.nproc !== undefined) {
        const { validateLayout } = await import('../../config/layout.js');
        validateLayout(request.config, options.nproc, { origins: request.origins });
      }
      const explain = options.explain ?? false;
      process.stdout.write(options.json ? asJson(request, explain) : await asYaml(request, explain));
    });
}

function asJson({ config, origins }: RunRequest, explain: boolean): string {
  return outputLine('config', { config: { ...config }, ...(explain ? { origins: Object.fromEntries(origins) } : {}) });
}

function originText(source: Origin | undefined): string {
  if (source === undefined) return 'default';
  return source.origin === 'derived' ? `from ${source.place}` : source.place;
}

async function asYaml({ config, origins }: RunRequest, explain: boolean): Promise<string> {
  const { Document, isMap, isScalar, visit } = await import('yaml');
  const doc = new Document(config);
  if (explain) {
    visit(doc, {
      Pair(_, pair, parents) {
        if (!isScalar(pair.value)) return;
        const keys = [...parents, pair].flatMap((node) =>
          'key' in node && isScalar(node.key) ? [node.key.value] : [],
        );
        pair.value.comment = ` ${originText(origins.get(keys.join('.')))}`;
      },
      Map: (_, map) => (isMap(map) ? undefined : visit.SKIP),
    });
  }
  return doc.toString({ lineWidth: 0 });
}
