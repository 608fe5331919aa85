<?php

declare(strict_types=1);

namespace Wootz;

/**
 * A worker that wootz keeps: it waits for calls on the listening socket that is its standard input, and answers one at a time.
 *
 * Isolated, each call is a fork of the warm worker. It sees what the worker had loaded and nothing of other calls, and whatever it
 * does to globals, classes or memory ends with it. It ends by KILL once it has answered, so that nothing of the worker's
 * (shutdown functions, destructors, connections to databases) is ended with it.
 */
final class Application
{
    /** Printed bytes are collected up to this many, then sent. ob_flush() sends at once. */
    private const CHUNK_BYTES = 32768;

    /** A signal right before select() sleeps does not wake it: neither TERM nor the end of a call that crashed just then. */
    private const SELECT_SECONDS = 1;

    private const FATAL = E_ERROR | E_PARSE | E_CORE_ERROR | E_COMPILE_ERROR | E_USER_ERROR | E_RECOVERABLE_ERROR;

    /** PHP's own exit status after an uncaught exception or a fatal error. */
    private const FAILED = 255;

    private static bool $prepared = false;

    /** The worker whose call this process is answering. */
    private static ?self $answering = null;

    private Exchange $exchange;
    private int $level;
    private bool $ending = false;

    private function __construct(private \Closure $startApplication, private ?\Closure $validateUser, private bool $isolate)
    {
    }

    /**
     * Answers calls until wootz ends the worker (TERM: a running call is finished).
     *
     * @param callable $startApplication `fn (string $uri, Connection $connection)`: what it prints, then what it returns (null, text, a
     *     number, or an iterable of those, each sent at once) is the reply. An exception is a failed call: nothing more is sent, the
     *     log has it. http_response_code() sets the status; 500 and above is a failed call too.
     * @param callable|null $validateUser `fn (string $ip, int $port, Connection $connection)`: who connects. It returns the user's
     *     id, or `['user' => id, 'expires' => seconds]`, or null, '' or 0 for a guest, or false for nobody who may connect. What it
     *     prints goes to the log. Ended by exit() it refuses.
     * @param bool $isolate a fork per call (needs pcntl and posix), or all in this process, which is faster and shares everything
     *     but superglobals. Then session_name() must be set before run(), and exit() ends the worker, which wootz replaces.
     * @throws \LogicException when isolation is not possible here
     * @throws \RuntimeException when wootz did not start this program
     */
    public static function run(callable $startApplication, ?callable $validateUser = null, bool $isolate = true): void
    {
        if ($isolate && !(function_exists('pcntl_fork') && function_exists('posix_kill'))) {
            throw new \LogicException('isolate: true needs the extensions pcntl and posix; install them, or say isolate: false');
        }
        self::prepare();
        (new self($startApplication(...), $validateUser === null ? null : $validateUser(...), $isolate))->serve(self::takeListener());
    }

    /**
     * Called by autoload.php. Registers the end of a call before the application registers its own, and sends what the worker prints
     * while it starts to the log: once PHP itself has written a byte, it starts no session any more.
     */
    public static function prepare(): void
    {
        if (self::$prepared) return;
        self::$prepared = true;
        register_shutdown_function(static fn () => self::$answering?->endAtShutdown());
        ob_start(static fn (string $printed): string => fwrite(STDERR, $printed) === false ? '' : '', 1);
    }

    /** @return resource the listening socket, taken off descriptor 0, where neither calls nor programs that they start should find it */
    private static function takeListener()
    {
        $listener = @fopen('php://fd/0', 'r+');
        if (!$listener || !@stream_socket_get_name($listener, false) || @stream_socket_get_name($listener, true)) {
            throw new \RuntimeException('standard input is no listening socket: let wootz start this worker (runner = "fastcgi" with a command)');
        }
        fclose(STDIN);
        static $input; // as long as the process: else descriptor 0 would go to the next file that is opened
        $input = fopen('/dev/null', 'r');
        putenv('WOOTZ_LISTEN');
        return $listener;
    }

    /** @param resource $listener */
    private function serve($listener): void
    {
        if (function_exists('pcntl_signal')) {
            foreach ([SIGTERM, SIGINT] as $signal) pcntl_signal($signal, fn () => $this->ending = true);
            pcntl_signal(SIGCHLD, static fn () => null); // ignored, it would not wake select()
        }
        set_error_handler(static fn (): bool => true); // an interrupted select() is no error; the application's handler would see one
        while (!$this->isEnding()) {
            if (!self::isReadable($listener) || !($stream = stream_socket_accept($listener, 0))) continue;
            try {
                $this->exchange = new Exchange($stream);
                $this->isolate ? $this->fork($stream, $listener) : $this->perform();
            } catch (\UnexpectedValueException $violation) {
                fwrite(STDERR, 'wootz: no FastCGI request: ' . $violation->getMessage() . "\n");
            }
            unset($this->exchange);
            fclose($stream);
        }
        restore_error_handler();
    }

    /**
     * @param resource $stream
     * @param resource $listener
     */
    private function fork($stream, $listener): void
    {
        $child = pcntl_fork();
        if ($child === 0) {
            fclose($listener);
            pcntl_signal(SIGCHLD, SIG_DFL); // TERM and INT keep their handlers: sent to the whole group, they must not tear the call
            mt_srand(random_int(PHP_INT_MIN, PHP_INT_MAX)); // else all calls would draw the same numbers
            $this->perform();
            self::vanish();
        } elseif ($child === -1) {
            http_response_code(503);
            $this->exchange->error('wootz: no process for this call: ' . pcntl_strerror(pcntl_get_last_error()) . "\n");
            $this->exchange->end(0);
        } else {
            $this->watch($child, $stream);
        }
    }

    /**
     * Waits for the end of an isolated call. The connection is readable when the call has answered, and when the browser is gone:
     * either way nobody waits for the process any more.
     *
     * @param resource $stream
     */
    private function watch(int $child, $stream): void
    {
        while (pcntl_waitpid($child, $status, WNOHANG) === 0) {
            if (self::isReadable($stream)) {
                posix_kill($child, SIGKILL);
                pcntl_waitpid($child, $status);
                return;
            }
        }
        if (pcntl_wifsignaled($status) && pcntl_wtermsig($status) !== SIGKILL) {
            fwrite(STDERR, 'wootz: a call was ended by signal ' . pcntl_wtermsig($status) . "\n");
        }
    }

    /** Runs the call in this process and answers. */
    private function perform(): void
    {
        restore_error_handler();
        $exchange = $this->exchange;
        $connection = new Connection($exchange->variables, $exchange->message);
        $this->fillSuperglobals($connection);
        $send = $connection->event === 'validate' ? $exchange->error(...) : $exchange->output(...);
        ob_start(static function (string $printed, int $phase) use ($send): string {
            $phase & PHP_OUTPUT_HANDLER_CLEAN || $send($printed);
            return '';
        }, self::CHUNK_BYTES);
        $this->level = ob_get_level();
        self::$answering = $this;
        try {
            $connection->event === 'validate' ? $this->validate($connection) : self::print(($this->startApplication)($connection->uri, $connection));
            $this->end(0);
        } catch (\Throwable $thrown) {
            $this->fail((string) $thrown);
        }
        self::$answering = null;
        set_error_handler(static fn (): bool => true);
    }

    private function validate(Connection $connection): void
    {
        if ($this->validateUser === null) {
            throw new \LogicException('wootz asks who connects (identity.provider = "application"), but run() was given no validateUser');
        }
        $user = ($this->validateUser)($connection->ip, $connection->port, $connection);
        if ($user === false) {
            http_response_code(403);
        } elseif ($user !== 0) {
            $this->exchange->output(is_array($user) ? json_encode($user, JSON_THROW_ON_ERROR) : self::text($user));
        }
    }

    /** Prints what the application returned. */
    private static function print(mixed $reply): void
    {
        foreach (is_iterable($reply) ? $reply : [$reply] as $piece) {
            echo self::text($piece);
            is_iterable($reply) && ob_flush();
        }
    }

    private static function text(mixed $piece): string
    {
        if ($piece === null || is_string($piece) || is_int($piece) || is_float($piece) || $piece instanceof \Stringable) return (string) $piece;
        throw new \UnexpectedValueException('a reply is text, not ' . get_debug_type($piece));
    }

    /** Sends what is left and the end. The session is written before: the next call may come as soon as the end has gone. */
    private function end(int $status): void
    {
        session_status() === PHP_SESSION_ACTIVE && session_write_close();
        while (ob_get_level() >= $this->level && ob_end_flush());
        $this->exchange->end($status);
    }

    /** Ends a call without the reply: what was not sent yet is dropped. A status says more than an exit status, unless it is too late. */
    private function fail(string $reason): void
    {
        while (ob_get_level() >= $this->level && ob_end_clean());
        $status = $this->exchange->hasBegun() ? self::FAILED : 0;
        http_response_code(500);
        $this->exchange->error("$reason\n");
        $this->end($status);
    }

    /** The call was ended by exit() or a fatal error. */
    private function endAtShutdown(): void
    {
        $error = error_get_last();
        if ($error !== null && $error['type'] & self::FATAL) {
            ini_set('memory_limit', '-1'); // it may be used up, and this process only says so now
            $this->fail("$error[message] in $error[file]:$error[line]");
        } else {
            // Nobody can see the status that exit() was given. As for php-fpm it is the normal end of a page; but it lets nobody in.
            ($this->exchange->variables['WOOTZ_EVENT'] ?? '') !== 'validate' || http_response_code(403);
            $this->end(0);
        }
        $this->isolate && self::vanish();
    }

    /** Ends this process, and runs nothing more in it. */
    private static function vanish(): never
    {
        posix_kill(getmypid(), SIGKILL);
        exit; // not reached: a signal to oneself arrives before kill() returns
    }

    private function fillSuperglobals(Connection $connection): void
    {
        static $script;
        $script ??= realpath($_SERVER['SCRIPT_FILENAME'] ?? '');
        $now = microtime(true);
        $_SERVER = $connection->env + ['SCRIPT_FILENAME' => $script, 'PHP_SELF' => '', 'REQUEST_TIME' => (int) $now, 'REQUEST_TIME_FLOAT' => $now];
        parse_str($connection->env['QUERY_STRING'] ?? '', $_GET);
        $_POST = $_FILES = [];
        $_REQUEST = $_GET;
        $_COOKIE = $connection->cookies;
        unset($_SESSION);
        http_response_code(200);
        error_clear_last();
        if (session_id() === '' && $this->isolate) return;
        // PHP keeps the id of the last session of its process. It is not this browser's.
        $id = $_COOKIE[session_name()] ?? '';
        session_id(is_string($id) && preg_match('/^[A-Za-z0-9,-]{1,250}$/D', $id) ? $id : '');
    }

    /** @param resource $stream */
    private static function isReadable($stream): bool
    {
        [$read, $none] = [[$stream], null];
        return (bool) stream_select($read, $none, $none, self::SELECT_SECONDS);
    }

    private function isEnding(): bool
    {
        function_exists('pcntl_signal_dispatch') && pcntl_signal_dispatch();
        return $this->ending;
    }
}
