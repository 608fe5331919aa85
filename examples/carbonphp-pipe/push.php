<?php
// Pushes as CarbonPHP's `Pipe::sendToFifoChannel` does: the message, then the end of a record, in one write.
// usage: php push.php PIPE MESSAGE

const RECORD_END = "\nCarbonPHP\\Abstracts\\Pipe:29\n";

/** Ends the program, whoever reads standard error knowing why. */
function fail(string $why): never
{
    fwrite(STDERR, "push.php: $why\n");
    exit(1);
}

if ($argc !== 3) fail('usage: php push.php PIPE MESSAGE');
[, $path, $message] = $argv;

// Opened for writing, a missing pipe would become a file, and one that nobody reads would hold us here forever: so look first,
// and open without waiting ("n").
if (!is_writable($path) || filetype($path) !== 'fifo') fail("$path is no pipe that we may write. Is wootz running, with these pipes?");
$pipe = @fopen($path, 'wn') ?: fail("nobody reads $path. Is wootz running?");
stream_set_blocking($pipe, true);

$record = $message . RECORD_END;
if (fwrite($pipe, $record) !== strlen($record)) fail("$path took only a part of the message");
