// Says what it was given; NaN shows that an event is not text on its way.
export function runWorker(ctx) {
  ctx.emit({ type: 'given', rank: ctx.rank, options: ctx.options, value: NaN });
}
