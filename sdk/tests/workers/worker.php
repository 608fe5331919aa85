<?php
// The worker of the tests. usage: php worker.php isolated|shared
declare(strict_types=1);

require __DIR__ . '/../../php/autoload.php';

use Wootz\{Application, Connection};

/** Says in a file that something of the worker's has run. */
function leave(string $name): void
{
    file_put_contents(getenv('TEST_HOME') . "/$name", getmypid() . "\n", FILE_APPEND);
}

register_shutdown_function(leave(...), 'shutdown'); // the worker's: a call must not run it
final class Guard { public function __destruct() { leave('destructor'); } }
$guard = new Guard();
$counter = 0;
$closed = null;

echo "the worker prints while it starts\n";

/** Waits until the test writes into the pipe that the query names. */
function hold(): string
{
    echo getmypid(), "\n";
    ob_flush();
    file_get_contents($_GET['fifo']); // opening is resumed after a signal
    return 'released';
}

$application = static function (string $uri, Connection $connection) use (&$counter) {
    global $closed;
    switch (strtok($uri, '?')) {
        case '/echo': return $connection->message;
        case '/print': echo 'printed, '; return 'returned';
        case '/nothing': return null;
        case '/number': return 42;
        case '/parts': return (static function () { yield 'one '; yield 'two '; yield 3; })();
        case '/wrong': return new stdClass();
        case '/stream': echo "first\n"; ob_flush(); file_get_contents($_GET['fifo']); echo "second\n"; return null;
        case '/hold': return hold();
        case '/connection': return json_encode(['env' => null] + get_object_vars($connection) + ['port' => $connection->port]);
        case '/env': return json_encode($connection->env);
        case '/superglobals': return json_encode(compact('closed') + ['server' => $_SERVER, 'get' => $_GET, 'post' => $_POST, 'cookie' => $_COOKIE, 'request' => $_REQUEST, 'session' => $_SESSION ?? null]);
        case '/counter': return (string) ++$counter;
        case '/count': session_start(); return 'count ' . ($_SESSION['count'] = ($_SESSION['count'] ?? 0) + 1);
        case '/big': return str_repeat('0123456789abcdef', 65536);
        case '/chunks': for ($i = 0; $i < 65536; $i++) echo '0123456789abcdef'; return null;
        case '/status': http_response_code((int) $_GET['is']); return 'with a status';
        case '/throw': echo 'half a reply'; throw new RuntimeException('thrown on purpose');
        case '/late-throw': echo 'half a reply'; ob_flush(); throw new RuntimeException('thrown on purpose');
        case '/fatal': echo 'half a reply'; eval('class Guard {}'); return 'not reached';
        case '/memory': echo 'half a reply'; ini_set('memory_limit', '16M'); $all = []; while (true) $all[] = str_repeat('x', 100000);
        case '/exit': echo 'until here'; exit((int) ($_GET['status'] ?? 0));
        case '/die': die('last words');
        case '/crash': posix_kill(getmypid(), SIGSEGV); return 'not reached';
        case '/buffers': ob_start(); echo 'inner'; ob_start(); echo ' most'; return ' end';
        case '/clean': echo 'dropped'; ob_clean(); echo 'kept'; return null;
        case '/inherited':
            $sockets = array_filter(array_map(static fn ($fd) => @readlink("/proc/self/fd/$fd"), scandir('/proc/self/fd')), static fn ($to) => str_starts_with((string) $to, 'socket:'));
            return json_encode(['sockets' => count($sockets), 'listen' => getenv('WOOTZ_LISTEN'), 'input' => readlink('/proc/self/fd/0')]);
        case '/random': return (string) mt_rand();
        case '/background': exec('sleep 1000 > /dev/null 2>&1 & echo $!', $lines); return $lines[0];
        case '/pid': return (string) getmypid();
        default: return 'no such route';
    }
};

$validate = static function (string $ip, int $port, Connection $connection): mixed {
    echo "asked about $ip:$port";
    return match ($connection->cookies['who'] ?? '') {
        'alice' => 'alice', 'number' => 7, 'zero' => 0, 'array' => ['user' => 'bob', 'expires' => 60], 'refused' => false,
        'exit' => exit('alice'), 'true' => true, 'throw' => throw new RuntimeException('no database'), default => null,
    };
};

mt_rand();
Application::run($application, ($argv[2] ?? '') === 'without-validate' ? null : $validate, isolate: $argv[1] === 'isolated');
leave('ended');
