/** Apache Kafka by kafkajs: the consumer that you have, around a receiver. */
export type { KafkaAdmin, KafkaConsumer, KafkaProducer, KafkaRunConfig } from './client.ts';
export type { KafkaDeadLetter, KafkaDeadLetterOption } from './dead-letter.ts';
export type { KafkaDelivery, KafkaRecord } from './delivery.ts';
export { type KafkaDestinationOptions, type KafkaProducing, kafkaDestination } from './destination.ts';
export { type KafkaAdapter, kafka } from './kafka.ts';
export { messageKey, offset } from './keys.ts';
export type { KafkaActivity } from './link.ts';
export type { KafkaOptions } from './options.ts';
export type { OffsetTransactionStore, OffsetTransactions, OffsetTx, TopicPartition } from './transactions.ts';
export {
  type KafkaWatermark,
  type WatermarkOnlyStore,
  type WatermarkOptions,
  type WatermarkStore,
  watermark,
  watermarkOnly,
} from './watermark.ts';
