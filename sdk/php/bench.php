<?php
// What an isolated call costs beside a bare fork of the same warm process, in one run: `php sdk/php/bench.php [calls]`.
// The floor forks, lets the child end by KILL as a call does, and waits for it. The worker is this same program.
declare(strict_types=1);

require __DIR__ . '/autoload.php';

// What a warm worker has loaded: some megabytes of classes and data.
$loaded = array_map(static fn (int $n): array => ['id' => $n, 'name' => "name $n"], range(1, 20000));

if (getenv('WOOTZ_LISTEN') !== false) {
    Wootz\Application::run(static fn (string $uri): string => 'hello', isolate: $argv[1] === 'isolated');
    exit;
}

$calls = (int) ($argv[1] ?? 1000);

/** @param callable(): void $measured */
function microseconds(callable $measured): float
{
    $before = hrtime(true);
    $measured();
    return (hrtime(true) - $before) / 1000;
}

function record(int $type, string $content = ''): string
{
    return pack('CCnnxx', 1, $type, 1, strlen($content)) . $content;
}

/** @return callable(): void one call of a fresh worker */
function worker(string $isolation): callable
{
    $path = sys_get_temp_dir() . '/wootz-bench-' . getmypid() . "-$isolation.sock";
    $listener = stream_socket_server("unix://$path");
    $process = proc_open([PHP_BINARY, __FILE__, $isolation], [$listener, STDOUT, STDERR], $pipes, null, ['WOOTZ_LISTEN' => $path] + getenv());
    register_shutdown_function(static function () use ($process, $path): void {
        proc_terminate($process);
        proc_close($process);
        unlink($path);
    });
    $variables = '';
    foreach (['REQUEST_URI' => '/hello', 'REQUEST_METHOD' => 'GET', 'WOOTZ_EVENT' => 'message', 'CONTENT_LENGTH' => '6', 'HTTP_COOKIE' => 'PHPSESSID=abc'] as $name => $value) {
        $variables .= chr(strlen($name)) . chr(strlen($value)) . $name . $value;
    }
    $request = record(1, "\0\1\0\0\0\0\0\0") . record(4, $variables) . record(4) . record(5, '/hello') . record(5);
    return static function () use ($path, $request): void {
        $stream = stream_socket_client("unix://$path");
        fwrite($stream, $request);
        str_contains(stream_get_contents($stream), 'hello') || exit("no answer\n");
    };
}

$floor = static function (): void {
    $child = pcntl_fork();
    if ($child === 0) {
        posix_kill(getmypid(), SIGKILL);
    }
    pcntl_waitpid($child, $status);
};

$rows = ['pcntl_fork and KILL' => $floor, 'isolated call' => worker('isolated'), 'call in the process' => worker('shared')];
$times = [];
for ($round = -$calls / 10; $round < $calls; $round++) { // in turns, so that all see the same machine
    foreach ($rows as $name => $row) {
        $time = microseconds($row);
        $round < 0 || $times[$name][] = $time;
    }
}
foreach ($times as $name => $sorted) {
    sort($sorted);
    $median = $sorted[intdiv($calls, 2)];
    $base ??= $median;
    printf("%-22s median %6.0f µs   p99 %6.0f µs   %.2f x the floor\n", $name, $median, $sorted[(int) ($calls * 0.99)], $median / $base);
}
