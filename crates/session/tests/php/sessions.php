<?php
// Writes random sessions by the session module, reads them back by it, and says what lies at random paths of each.
// Usage: sessions.php DIRECTORY SEED COUNT whole|changed. The serializer is the one of php.ini (-d session.serialize_handler=…).
//
// Standard output, fields as hexadecimal digits: "session DATA", "refused" if PHP can't read it, and lines "at PATH KIND VALUE".

[, $directory, $seed, $count, $what] = $argv;
mt_srand((int)$seed);
session_save_path($directory);
$binary = ini_get('session.serialize_handler') === 'php_binary';

enum Role { case Admin; case Guest; }
enum Level: int { case One = 1; }
class Base { private $id = 'of the parent'; public $open = 1; }
class User extends Base { public $name; protected $kept; private $id; public $more;
    function __construct($n, $k, $i, $m) { $this->name = $n; $this->kept = $k; $this->id = $i; $this->more = $m; } }
/** Serialized as an array of its own choice. */
class Chosen { public $data;
    function __construct($data) { $this->data = $data; }
    function __serialize(): array { return $this->data; }
    function __unserialize(array $data): void { $this->data = $data; } }
/** Serialized as a string of its own, as classes were before PHP 7.4. */
class Old implements Serializable { public $data;
    function __construct($data) { $this->data = $data; }
    function serialize() { return serialize($this->data); }
    function unserialize($data) { $this->data = unserialize($data); } }

$references = $objects = [];

function chance(int $of): bool { return mt_rand(1, $of) === 1; }
function text(): string {
    $all = ['', '0', 'alice', "\0\xff\"';|{}", 'i:5;', '|i:1;id|i:2;', 'a:1:{i:0;i:1;}', 'Zoë', "line\nline", str_repeat('long ', mt_rand(1, 60))];
    return chance(3) ? random_text() : $all[mt_rand(0, count($all) - 1)];
}
function random_text(): string {
    for ($text = '', $left = mt_rand(0, 40); $left-- > 0;) { $text .= chr(mt_rand(0, 255)); }
    return $text;
}
function number(): int {
    $all = [0, 1, -1, 42, PHP_INT_MAX, PHP_INT_MIN, 2 ** 53, mt_rand(), -mt_rand()];
    return $all[mt_rand(0, count($all) - 1)];
}
function decimal(): float {
    $all = [0.0, -0.0, 0.1, 1.0, 42.0, -1.5, 1e15, 1e25, 1.5e-10, 2.0 ** 63, PHP_FLOAT_MAX, PHP_FLOAT_MIN, INF, -INF, NAN, mt_rand() / 7];
    return $all[mt_rand(0, count($all) - 1)];
}
function key_of_array() {
    $all = ['id', 'user', 'name', 'a.b', '5', '05', '-7', "\0", 'a|b', 'ü', 'x"y', ';', '{', "\0*\0id", 0, 1, 7, -3, ''];
    return $all[mt_rand(0, count($all) - 1)];
}
function value(int $depth) {
    global $objects;
    if ($objects && chance(12)) { return $objects[mt_rand(0, count($objects) - 1)]; }
    switch (mt_rand(0, $depth > 0 ? 13 : 6)) {
        case 0: return null;
        case 1: return chance(2);
        case 2: return number();
        case 3: return decimal();
        case 4: case 5: return text();
        case 6: return chance(2) ? (chance(2) ? Role::Admin : Role::Guest) : Level::One;
        case 7: case 8: case 9: return an_array($depth - 1);
        case 10: return kept((object)an_array($depth - 1));
        case 11: return kept(new User(value($depth - 1), value($depth - 1), value($depth - 1), value($depth - 1)));
        case 12: return kept(chance(2) ? new Chosen(an_array($depth - 1)) : new Old(an_array($depth - 1)));
        default: return kept(foreign($depth - 1));
    }
}
function foreign(int $depth): object {
    if (chance(3)) { return new DateTimeImmutable('2026-01-02 03:04:05 UTC'); }
    if (chance(2)) { return new ArrayObject(an_array($depth)); }
    $storage = new SplObjectStorage();
    $storage[kept(new stdClass())] = value($depth);
    return $storage;
}
function kept(object $object): object {
    global $objects;
    if (chance(2)) { $objects[] = $object; }
    return $object;
}
function an_array(int $depth): array {
    global $references;
    $array = [];
    for ($left = mt_rand(0, 5); $left-- > 0;) {
        $key = key_of_array();
        unset($array[$key]);
        if ($references && chance(6)) {
            $array[$key] = &$references[mt_rand(0, count($references) - 1)];
            continue;
        }
        $array[$key] = value($depth);
        if (chance(6)) { $references[] = &$array[$key]; }
    }
    if (chance(25)) { $array['itself'] = &$array; }
    return $array;
}
/** Names that each serializer can write; others make PHP lose the session. */
function variable(): string {
    global $binary;
    $all = ['id', 'user', 'auth', 'a.b', 'a', 'login_web_59ba36addc2b2f9401580f014c7f58ea4e30989d', '!odd', 'user.id', 'x:y', 'ü', '_'];
    if ($binary) { $all[] = 'a|b'; }
    return $all[mt_rand(0, count($all) - 1)];
}

/** What a reader of the serialized form sees inside, or null if nothing. */
function inside($value): ?array {
    if (is_array($value)) { return $value; }
    // Written like an object's properties.
    if ($value instanceof Chosen) { $value = (object)$value->data; }
    if (!is_object($value) || $value instanceof UnitEnum || !in_array(get_class($value), ['stdClass', 'User', '__PHP_Incomplete_Class'], true)) { return null; }
    $properties = (array)$value;
    foreach ($properties as $name => $property) {
        $name = (string)$name;
        if (($name[0] ?? '') !== "\0" || ($end = strpos($name, "\0", 1)) === false) { continue; }
        $bare = substr($name, $end + 1);
        // The public one first, else the last.
        if (!isset($seen[$bare]) && array_key_exists($bare, $properties)) { continue; }
        $seen[$bare] = true;
        $properties[$bare] = $property;
    }
    return $properties;
}
function at(string $path, array $session): array {
    if (array_key_exists($path, $session)) { return [$session[$path]]; }
    $value = $session;
    foreach (explode('.', $path) as $key) {
        $inside = inside($value);
        if ($inside === null || !array_key_exists($key, $inside)) { return []; }
        $value = $inside[$key];
    }
    return [$value];
}
function a_path(array $session): ?string {
    $path = [];
    $value = $session;
    for ($depth = 0; $depth < 8 && ($inside = inside($value)); $depth++) {
        $key = array_rand($inside);
        // Only text can be named, nothing empty, and a key with a dot only as the whole path.
        if (in_array('', explode('.', (string)$key), true) || !preg_match('//u', (string)$key) || ($depth > 0 && str_contains((string)$key, '.'))) { break; }
        $path[] = $key;
        $value = $inside[$key] ?? null;
        if (chance(4) || str_contains((string)$key, '.')) { break; }
    }
    return $path ? implode('.', $path) : null;
}
function line(string $path, array $found): string {
    [$kind, $value] = !$found ? ['nothing', ''] : match (true) {
        $found[0] === null => ['null', ''],
        is_bool($found[0]) => ['bool', (string)(int)$found[0]],
        is_int($found[0]) => ['int', (string)$found[0]],
        is_float($found[0]) => ['float', is_nan($found[0]) ? 'NAN' : bin2hex(pack('E', $found[0]))],
        is_string($found[0]) => ['bytes', $found[0]],
        is_array($found[0]) => ['array', ''],
        $found[0] instanceof UnitEnum => ['enum', get_class($found[0]) . ':' . $found[0]->name],
        default => ['object', ''],
    };
    return 'at ' . bin2hex($path) . " $kind " . bin2hex($value) . "\n";
}
function lines(array $session): string {
    $paths = ['id', 'user.id', 'nothing', 'user.nothing.more'];
    for ($left = 20; $left-- > 0;) {
        $path = a_path($session);
        if ($path !== null) { array_push($paths, $path, chance(6) ? "$path.nothing" : $path); }
    }
    return implode('', array_map(fn($path) => line((string)$path, at((string)$path, $session)), array_unique($paths)));
}
function changed(string $data): string {
    $bytes = '0123456789:;{}"|aisSdOCErRNb';
    for ($left = mt_rand(1, 2); $left-- > 0 && $data !== '';) {
        $place = mt_rand(0, strlen($data) - 1);
        $byte = $bytes[mt_rand(0, strlen($bytes) - 1)];
        $data = substr_replace($data, chance(4) ? '' : $byte, $place, chance(4) ? 0 : 1);
    }
    return $data;
}

// Nothing may be printed before the last session has begun.
$output = '';
for ($number = 0; $number < $count; $number++) {
    $references = $objects = [];
    session_id("s$number");
    session_start() or exit(3);
    $_SESSION = [];
    for ($left = mt_rand(0, 8); $left-- > 0;) {
        $name = variable();
        if ($references && chance(5)) { $_SESSION[$name] = &$references[mt_rand(0, count($references) - 1)]; }
        else { $_SESSION[$name] = value(4); }
        if (chance(4)) { $references[] = &$_SESSION[$name]; }
    }
    session_write_close();
    $file = "$directory/sess_s$number";
    $data = file_get_contents($file);
    if ($what === 'changed') { file_put_contents($file, $data = changed($data)); }
    $output .= 'session ' . bin2hex($data) . "\n";
    unset($_SESSION);
    try { $read = @session_start(['read_and_close' => true]) && session_id() !== ''; } catch (Throwable) { $read = false; }
    // A session that could not be decoded has been destroyed: its file is gone.
    $output .= $read && is_file($file) ? lines($_SESSION) : "refused\n";
    if (session_status() === PHP_SESSION_ACTIVE) { session_abort(); }
    @unlink($file);
}
echo $output;
