<?php
// Executes the jobs of the queue that it is told.
require_once __DIR__ . '/queues.php';

$queue = queue(redis(getenv('REDIS_URL')));
while (true) {
    if ($job = $queue->pop($argv[1])) {
        $job->fire();
    }
}
