package cli

const defaultServer = "http://127.0.0.1:8080"

// TopicCmd is to come.
type TopicCmd struct{}

// JobCmd is to come.
type JobCmd struct{}

// MigrateCmd is to come.
type MigrateCmd struct{}

// ConfigCmd is to come.
type ConfigCmd struct{}

// VersionCmd is to come.
type VersionCmd struct{}
