<?php

declare(strict_types=1);

namespace Wootz;

/** What became of a push. `reached` is the sum of `queued`, `dropped` and `joined`. */
final class Receipt
{
    /** Connections that were meant. */
    public readonly int $reached;

    /** Of those, the ones that took it. */
    public readonly int $queued;

    /** Of those, the ones that were too slow, closing, or had no room. */
    public readonly int $dropped;

    /** Of those, the ones whose request shares a call with an equal one. */
    public readonly int $joined;

    /** With `wait: true`: connections that it was written out to; else null. */
    public readonly ?int $written;

    /** @param array<string, int> $counts */
    public function __construct(array $counts)
    {
        foreach (['reached', 'queued', 'dropped', 'joined'] as $name) $this->$name = $counts[$name] ?? 0;
        $this->written = $counts['written'] ?? null;
    }
}
