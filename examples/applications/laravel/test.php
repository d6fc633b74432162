<?php
// Two processes for each of six queues execute the jobs, each once; the cache and its locks do what Laravel asks of them.
require_once __DIR__ . '/queues.php';

const JOBS = 20;
const WAIT = 60;

function check($what, $got, $expected)
{
    if ($got !== $expected) {
        throw new Exception("$what: " . json_encode($got) . ' instead of ' . json_encode($expected));
    }
}

function refused($command, $attempt)
{
    try {
        $answer = json_encode($attempt());
        echo "refused: $command: it works: $answer\n";
    } catch (Predis\Response\ServerException $error) {
        echo "refused: $command: {$error->getMessage()}\n";
    }
}

$redis = redis(getenv('REDIS_URL'));
$queue = queue($redis);
$store = $redis->connection();
$workers = [];
foreach (QUEUES as $name) {
    foreach ([1, 2] as $_) {
        $workers[] = proc_open([PHP_BINARY, __DIR__ . '/work.php', $name], [], $pipes);
    }
}
try {
    $expected = [];
    foreach (QUEUES as $name) {
        for ($number = 0; $number < JOBS; $number++) {
            $queue->push('Square', ['number' => $number], $name);
            $expected[] = $number ** 2;
        }
        $queue->later(1, 'Square', ['number' => JOBS], $name);
        $expected[] = JOBS ** 2;
    }
    $squares = [];
    while (count($squares) < count($expected)) {
        [, $square] = $store->blpop(['squares'], WAIT) ?? throw new Exception('a job was not executed');
        $squares[] = (int) $square;
    }
    sort($squares);
    sort($expected);
    check('results', $squares, $expected);
    foreach (QUEUES as $name) {
        $keys = array_map(fn ($number) => "$number:executed:$name", range(0, JOBS));
        check('each job is executed once', $store->mget($keys), array_fill(0, JOBS + 1, '1'));
        check('nothing is left', $queue->size($name), 0);
    }
} finally {
    foreach ($workers as $worker) {
        proc_terminate($worker);
        proc_close($worker);
    }
}

$cache = cache($redis);
$values = [];
for ($number = 0; $number < 100; $number++) {
    $values["key-$number"] = "value-$number";
}
$cache->put('gone', 1, 600);
check('flush', [$cache->flush(), $cache->get('gone')], [true, null]);
check('putMany', $cache->putMany($values, 600), true);
check('many', $cache->many(array_keys($values)), $values);
check('add', [$cache->add('only', 'one', 600), $cache->add('only', 'two', 600), $cache->get('only')], [true, false, 'one']);
$cache->put('count', 1, 600);
check('increment', $cache->increment('count', 4), 5);
check('remember', [$cache->remember('made', 600, fn () => 'once'), $cache->get('made')], ['once', 'once']);
[$mine, $other] = [$cache->lock('the-lock', 60), cache(redis(getenv('REDIS_URL')))->lock('the-lock', 60)];
check('a lock is held by one', [$mine->get(), $other->get(), $other->release(), $mine->release(), $other->get()], [true, false, false, true, true]);
$cache->tags(['people', 'artists'])->put('anne', 'painter', 600);
check('tags', $cache->tags(['people', 'artists'])->get('anne'), 'painter');

$defaults = redis(getenv('DEFAULTS_URL'));
// Both keys of a name can be on one shard by chance.
refused('EVAL', fn () => array_map(fn ($name) => queue($defaults)->push('Square', ['number' => 1], $name), range('a', 'z')));
refused('MULTI', fn () => cache($defaults)->putMany($values, 600));
