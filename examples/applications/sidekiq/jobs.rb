# Sidekiq: jobs of any number of queues and processes. The setting of memstore's pool:
#
#     transactions: per-shard
#
# apt-get install ruby-sidekiq, then REDIS_URL=redis://... sidekiq -r ./jobs.rb -q mails -q images
require 'sidekiq'

class Square
  include Sidekiq::Job

  def perform(number)
    Sidekiq.redis do |store|
      store.call('INCR', "#{number}:executed")
      store.call('LPUSH', 'squares', number * number)
    end
  end
end
