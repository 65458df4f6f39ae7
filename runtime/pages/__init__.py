"""The pages that dlzoo writes for people: HTML without network, styles and scripts inside."""
